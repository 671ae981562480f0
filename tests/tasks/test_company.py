"""Jobs that train together: what one of them does, and what they share, is told apart."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

import graftlab.tasks.company as company
import graftlab.training.joint.run as joint
from graftlab.errors import GraftlabError, Interrupted, LeakError, ResumeError
from graftlab.sweeps.engine import prepare
from graftlab.sweeps.ledger import Ledger
from graftlab.sweeps.spec import Sweep
from graftlab.tasks.company import JointWorker
from graftlab.tasks.train import TrainSpec
from graftlab.training.joint.groups import Ended
from graftlab.training.joint.seat import Seat
from sweep_runs import jobs_of, small_run

RATES = (1e-3, 2e-3, 3e-3)
LAUNCH = "a"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> TrainSpec:
    return small_run(tmp_path_factory.mktemp("company"))


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

    def finish(seat: Seat, **_) -> None:
        finished.append(seat.index)
        if len(finished) == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Seat, "finish", finish)
    worker.most = 2
    with pytest.raises(Interrupted) as stop:
        worker.work()
    assert stop.value.exit_code == 128 + signal.SIGTERM
    assert finished == [0, 1]
    assert states(worker.ledger) == ["done", "done", "waiting"]  # the third was not begun


@pytest.mark.parametrize("error", [LeakError("adapters see each other"), ZeroDivisionError("ours")])
def test_an_error_of_the_company_counts_against_no_job(worker, alone, monkeypatch, error) -> None:
    companies = []

    def fail(jobs, **_):
        companies.append(len(jobs))
        if not isinstance(error, GraftlabError):
            raise error
        for index in range(len(jobs)):
            yield Ended(index=index, error=error, shared=True)

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
            yield Ended(index=index)

    def spec(self: JointWorker, claimed) -> TrainSpec:
        if claimed.job.number == 1:
            raise error
        return self._plain(claimed.job)

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
            yield Ended(index=index)

    monkeypatch.setattr(company, "supply", lambda data: told.append(data.train))
    monkeypatch.setattr(joint, "execute_together", train)
    assert worker.work() == 0
    assert told == [worker._plain(worker.ledger.jobs()[0]).data.train, "trained"]
