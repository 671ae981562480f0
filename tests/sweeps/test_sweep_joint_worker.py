"""Jobs that train together: what one of them does, and what they share, is told apart."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import graftlab.sweeps.joint_worker as joint_worker_module
import graftlab.training.joint.run as joint
from graftlab.errors import GraftlabError, Interrupted, LeakError, Paused, ResumeError
from graftlab.files.locks import try_lock
from graftlab.sweeps.claim import lock_file
from graftlab.sweeps.engine import prepare
from graftlab.sweeps.joint_worker import JointWorker
from graftlab.sweeps.ledger import Ledger
from graftlab.sweeps.spec import Sweep
from graftlab.training.joint.groups import JointJob, RunEnded
from graftlab.training.joint.joint_run import JointRun
from graftlab.training.spec import TrainSpec
from graftlab.training.start import run
from graftlab.training.watch import Callbacks, Samples
from joint_runs import assert_equal_runs
from sweep_runs import jobs_of, small_run

RATES = (1e-3, 2e-3, 3e-3)
LAUNCH = "a"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> TrainSpec:
    return small_run(tmp_path_factory.mktemp("together"))


@pytest.fixture
def worker(base: TrainSpec, tmp_path: Path) -> JointWorker:
    """A worker that may train all three jobs together, and may try none twice."""
    ledger, _ = prepare(tmp_path / "sweep", Sweep(retries=0))
    ledger.add(jobs_of(base, RATES), launch=LAUNCH)
    ledger.put(f"closed {LAUNCH}", True)
    return JointWorker(ledger, LAUNCH, most=3)


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of the jobs that were trained alone, which takes no time."""
    numbers: list[int] = []

    def perform(self: JointWorker, claimed, folder: Path) -> float:
        numbers.append(claimed.job.number)
        return 1.0

    monkeypatch.setattr(JointWorker, "perform", perform)
    return numbers


def states(ledger: Ledger) -> list[str]:
    return [job.state for job in ledger.jobs(LAUNCH)]


def test_a_signal_while_the_last_runs_finish_ends_the_worker(worker, monkeypatch) -> None:
    finished = []

    def finish(seat: JointRun, **_) -> None:
        finished.append(seat.index)
        if len(finished) == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(JointRun, "finish", finish)
    worker.most = 2
    with pytest.raises(Interrupted) as stop:
        worker.work()
    assert stop.value.exit_code == 128 + signal.SIGTERM
    assert finished == [0, 1]
    assert states(worker.ledger) == ["done", "done", "waiting"]  # the third was not begun


@pytest.mark.parametrize("error", [LeakError("adapters see each other"), ZeroDivisionError("ours")])
def test_an_error_of_what_they_share_counts_against_no_job(
    worker, alone, monkeypatch, error
) -> None:
    companies = []

    def fail(jobs, **_):
        companies.append(len(jobs))
        if not isinstance(error, GraftlabError):
            raise error
        for index in range(len(jobs)):
            yield RunEnded(index=index, error=error, shared=True)

    monkeypatch.setattr(joint, "execute_together", fail)
    if isinstance(error, GraftlabError):
        assert worker.work() == 0
    else:
        with pytest.raises(SystemExit):  # something broken may be left behind
            worker.work()
        assert states(worker.ledger) == ["waiting"] * 3
        assert worker.work() == 0
    assert companies == [3]
    assert alone == [0, 1, 2]
    assert states(worker.ledger) == ["done"] * 3
    assert {job.attempts for job in worker.ledger.jobs(LAUNCH)} == {0}
    folders = [worker.ledger.folder / job.folder for job in worker.ledger.jobs(LAUNCH)]
    assert all(str(error) in (folder / "train.log").read_text() for folder in folders)


def test_an_error_of_the_base_they_share_is_told_as_shared(worker, alone, monkeypatch) -> None:
    def leak(*_, **__):
        raise LeakError("documents see each other")

    monkeypatch.setattr(joint, "check_apart", leak)
    assert worker.work() == 0
    assert states(worker.ledger) == ["done"] * 3
    assert alone == [0, 1, 2]


@pytest.mark.parametrize("error", [ResumeError("foreign"), OSError("unreadable")])
def test_a_job_that_cannot_begin_leaves_the_others_training(worker, monkeypatch, error) -> None:
    together = []

    def train(jobs, **_):
        together.append([job.spec.lr for job in jobs])
        for index in range(len(jobs)):
            yield RunEnded(index=index)

    def spec(self: JointWorker, claimed) -> TrainSpec:
        if claimed.job.number == 1:
            raise error
        return self.plain(claimed.job)

    monkeypatch.setattr(joint, "execute_together", train)
    monkeypatch.setattr(JointWorker, "spec", spec)
    assert worker.work() == 0
    assert together == [[RATES[0], RATES[2]]]
    assert states(worker.ledger) == ["done", "failed", "done"]
    assert str(error) in worker.ledger.jobs(LAUNCH)[1].error


def test_data_is_supplied_before_it_is_read(worker, monkeypatch) -> None:
    told = []

    def train(jobs, **_):
        told.append("trained")
        for index in range(len(jobs)):
            yield RunEnded(index=index)

    monkeypatch.setattr(joint_worker_module, "ensure_dataset", lambda data: told.append(data.train))
    monkeypatch.setattr(joint, "execute_together", train)
    assert worker.work() == 0
    assert told == [worker.plain(worker.ledger.jobs()[0]).data.train, "trained"]


def joint_worker_of(
    folder: Path, base: TrainSpec, count: int, *, most: int, **settings: Any
) -> JointWorker:
    """A worker that trains up to `most` of so many jobs together."""
    ledger, _ = prepare(folder / "sweep", Sweep(**settings))
    ledger.add(jobs_of(base, [1e-3 * (n + 1) for n in range(count)]), launch=LAUNCH)
    ledger.put(f"closed {LAUNCH}", True)
    return JointWorker(ledger, LAUNCH, most=most)


def numbers(jobs: Sequence[JointJob]) -> list[int]:
    return [int(job.folder.path.name[:4]) for job in jobs]


def test_places_are_taken_when_that_keeps_nobody_waiting(base, tmp_path, monkeypatch) -> None:
    worker = joint_worker_of(tmp_path, base, 8, most=4)
    came = []

    def train(jobs, *, joiners, **_):
        def ask(step: int, active: int) -> None:
            came.append(numbers(joiners(step, active)))

        ask(10, 4)  # no place is free
        yield RunEnded(index=0)
        ask(10, 3)  # one alone would keep three waiting
        yield RunEnded(index=1)
        ask(10, 2)  # two as well, but they are as many
        ask(0, 2)
        yield RunEnded(index=4)
        ask(5, 2)
        yield RunEnded(index=2)
        ask(5, 2)  # two places, two jobs left: all that there are
        for index in (3, 5, 6, 7):
            yield RunEnded(index=index)
        ask(9, 1)

    monkeypatch.setattr(joint, "execute_together", train)
    assert worker.work() == 0
    assert came == [[], [], [4, 5], [], [], [6, 7], []]
    assert states(worker.ledger) == ["done"] * 8
    log = (worker.ledger.folder / worker.ledger.jobs()[6].folder / "train.log").read_text()
    assert "Trained jointly: jobs 3, 5, 6, 7. What was said meanwhile: ../joint-0000.log" in log


def test_a_job_that_paused_comes_back_when_it_is_promoted(base, tmp_path, monkeypatch) -> None:
    worker = joint_worker_of(tmp_path, base, 3, most=3, pruner="asha")
    ledger, place = worker.ledger, (10, 2)

    def train(jobs, *, joiners, **_):
        ledger.tell(0, {"step": 2})
        ledger.reach(0, place, 1.0)
        yield RunEnded(index=0, error=Paused("alone at the rung"))
        lock = try_lock(lock_file(ledger.folder, 0))
        assert lock is not None  # whoever may go on with it finds it free
        os.close(lock)
        assert states(ledger) == ["paused", "running", "running"]
        assert joiners(2, 2) == []
        for number in (1, 2):
            ledger.reach(number, place, 2.0)
        monkeypatch.setattr(joint_worker_module, "ASK_SECONDS", 0.0)
        assert joiners(2, 2) == []  # it is not looked all the time
        yield RunEnded(index=1, error=Paused("not among the best"))
        assert numbers(joiners(2, 1)) == [0]
        assert states(ledger) == ["running", "paused", "running"]
        for index in (2, 3):
            yield RunEnded(index=index)

    monkeypatch.setattr(joint, "execute_together", train)
    assert worker.work() == 0
    assert states(ledger) == ["done", "paused", "done"]


def test_nobody_joins_what_is_to_end(base, tmp_path, monkeypatch) -> None:
    """Nor who has crashed, or asks for more samples than were kept of the data."""
    worker = joint_worker_of(tmp_path, base, 3, most=2)
    more = replace(base, callbacks=Callbacks(samples=Samples(prompts=3)))
    worker.ledger.add(jobs_of(more, (1e-3,)), launch=LAUNCH)
    came = []

    def train(jobs, *, joiners, **_):
        yield RunEnded(index=0)
        if len(jobs) == 2 and not came:
            worker.ledger.put(f"halted {LAUNCH}", True)
            came.append(numbers(joiners(5, 1)))
            worker.ledger.put(f"halted {LAUNCH}", False)
            worker.ledger.end(2, "waiting", launch=LAUNCH, error="out of memory")
            came.append(numbers(joiners(5, 1)))
        yield RunEnded(index=1)

    monkeypatch.setattr(joint, "execute_together", train)
    monkeypatch.setattr(JointWorker, "perform", lambda *_: 1.0)
    worker.retries = 1
    assert worker.work() == 0
    assert came == [[], []]
    assert states(worker.ledger) == ["done"] * 4


def test_a_job_that_joined_is_what_it_is_alone(base, tmp_path) -> None:
    """The first run ends after one epoch, and the third takes its place."""
    ledger, _ = prepare(tmp_path / "sweep", Sweep())
    short = jobs_of(replace(base, epochs=1), RATES[:1])
    ledger.add([*short, *jobs_of(base, RATES[1:])], launch=LAUNCH)
    ledger.put(f"closed {LAUNCH}", True)
    assert JointWorker(ledger, LAUNCH, most=2).work() == 0
    assert states(ledger) == ["done"] * 3
    assert [file.name for file in ledger.folder.glob("joint-*.log")] == ["joint-0000.log"]
    joined = (ledger.folder / ledger.jobs()[2].folder / "train.log").read_text()
    assert joined.startswith("Trained jointly: jobs 1, 2.")
    run(replace(base, lr=RATES[2], run_dir=str(tmp_path / "alone")))
    assert_equal_runs(ledger.folder / ledger.jobs()[2].folder, tmp_path / "alone")
