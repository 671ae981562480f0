"""Jobs of the dead and the silent: taken over once, counted once, written by their owner alone."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from graftlab.errors import GraftlabError
from graftlab.sweeps.claim import claim, worker_name
from graftlab.sweeps.engine import launch, prepare
from graftlab.sweeps.jobs import Job
from graftlab.sweeps.ledger import Ledger
from graftlab.sweeps.pool import Pool, _Process
from graftlab.sweeps.rules import Rules
from graftlab.sweeps.slots import Slot
from graftlab.sweeps.source import Grid
from graftlab.sweeps.spec import Sweep
from graftlab.sweeps.watcher import arrived, watch_job
from sweep_crew import Pretender, draft


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    ledger, _ = prepare(tmp_path / "sweep", Sweep(retries=1))
    ledger.add([draft("x")], launch="a")
    ledger.add([draft("x")], launch="b")
    return ledger


def take(ledger: Ledger, launch: str = "a"):
    return claim(ledger, launch, rules=Rules(), retries=1)


def dies(ledger: Ledger, launch: str = "a") -> subprocess.Popen[bytes]:
    """A worker of this host that has claimed the job and is gone."""
    program = (
        "import os, sys; from pathlib import Path\n"
        "from graftlab.sweeps.claim import claim; from graftlab.sweeps.ledger import Ledger\n"
        "from graftlab.sweeps.rules import Rules\n"
        "assert claim(Ledger(Path(sys.argv[1])), sys.argv[2], rules=Rules(), retries=1)\n"
        "os._exit(9)"
    )
    worker = subprocess.Popen([sys.executable, "-c", program, str(ledger.folder), launch])
    assert worker.wait() == 9
    return worker


def row(ledger: Ledger, launch: str = "a") -> Job:
    (job,) = ledger.jobs(launch)
    return job


def buried(ledger: Ledger, worker: subprocess.Popen[bytes], launch: str = "a") -> None:
    pool = Pool(ledger, launch, [Slot("cpu")], 1)
    pool._bury(_Process(Slot("cpu"), worker), -9)


def test_a_death_counts_once_whoever_finds_it_first(ledger: Ledger) -> None:
    worker = dies(ledger)
    again = take(ledger)
    buried(ledger, worker)  # too late: the job is ours
    assert again.job == replace(row(ledger), beat=again.job.beat)
    assert (again.job.state, again.job.worker) == ("running", worker_name())
    assert (again.job.tries, again.job.attempts) == (1, 1)
    assert "out of memory" in (ledger.folder / again.job.folder / "error.txt").read_text()
    ledger.end(0, "waiting", launch="a")
    again.release()

    worker = dies(ledger)
    buried(ledger, worker)
    assert (row(ledger).state, row(ledger).tries) == ("failed", 2)
    assert take(ledger) is None


def test_a_job_whose_last_try_died_fails_and_nobody_waits_for_it(ledger: Ledger) -> None:
    dies(ledger)
    dies(ledger)
    assert row(ledger).state == "running"
    ledger.put("closed a", True)
    pretender = Pretender(ledger, "a")
    assert not pretender._over()  # somebody has to say what became of it
    assert pretender.work() == 0
    assert (row(ledger).state, row(ledger).tries, row(ledger).worker) == ("failed", 2, None)
    assert "its process died" in row(ledger).error
    assert not list(ledger.folder.glob("*/starts.txt"))


def test_the_death_of_another_launchs_worker_is_not_held_against_the_job(ledger: Ledger) -> None:
    dies(ledger, "b")
    again = take(ledger, "a")
    assert (again.job.tries, again.job.attempts) == (0, 0)


def test_a_job_without_tries_here_that_died_elsewhere_fails(ledger: Ledger) -> None:
    with ledger.writing() as db:
        db.execute("UPDATE wanted SET tries = 2 WHERE launch = 'a'")
    dies(ledger, "b")
    ledger.put("closed a", True)
    assert Pretender(ledger, "a").work() == 0
    assert row(ledger).state == "failed"


def test_a_worker_that_was_taken_over_writes_nothing(ledger: Ledger) -> None:
    lost = take(ledger)
    watcher = watch_job(ledger, lost.job, Rules())
    _, words = watcher.travels()
    with ledger.writing() as db:  # silent for long, on another host
        db.execute("UPDATE jobs SET worker = 'elsewhere:1'")
    kept = row(ledger)
    for observer in (watcher, arrived(words, first=True)):
        observer.starts(total_steps=10, steps_per_epoch=5, step=3)
    worker = Pretender(ledger, "a")
    worker.folder(lost)
    worker.finish(lost, score=1.0)
    worker.finish(lost, error=ZeroDivisionError("late"))
    worker.finish(lost, error=GraftlabError("late"))
    assert row(ledger) == kept
    assert not (ledger.folder / kept.folder / "error.txt").exists()
    lost.release()


def test_a_burial_leaves_what_another_host_has_taken_over(ledger: Ledger, monkeypatch) -> None:
    """Between the pool's look at the ledger and its word, somebody is served."""
    worker = dies(ledger)
    real = ledger.jobs

    def late(launch: str | None = None) -> list[Job]:
        seen = real(launch)
        with ledger.writing() as db:
            db.execute("UPDATE jobs SET worker = 'elsewhere:1'")
        return seen

    with monkeypatch.context() as patch:
        patch.setattr(ledger, "jobs", late)
        buried(ledger, worker)
    assert (row(ledger).state, row(ledger).worker) == ("running", "elsewhere:1")
    assert (row(ledger).tries, row(ledger).error) == (0, None)


def test_workers_that_have_worked_are_not_stillborn(tmp_path: Path) -> None:
    """Five that each end badly after a job: three in a row without one would end the launch."""
    ledger, _ = prepare(tmp_path, Sweep())
    program = (
        "import sys; from pathlib import Path\n"
        "from graftlab.sweeps.claim import claim; from graftlab.sweeps.ledger import Ledger\n"
        "from graftlab.sweeps.rules import Rules\n"
        "ledger = Ledger(Path(sys.argv[1]))\n"
        "mine = claim(ledger, sys.argv[2], rules=Rules(), retries=1)\n"
        "if mine is None: sys.exit(0)\n"
        "ledger.end(mine.job.number, 'done', launch=sys.argv[2], score=1.0)\n"
        "sys.exit(1)"
    )
    ended = launch(
        ledger,
        Grid([draft(f"job {i}") for i in range(5)]),
        lambda name: Pool(ledger, name, [Slot("cpu")], 1, program=("-c", program)),
        slots=1,
    )
    assert ended.count("done") == 5
    assert all(job.worker is None for job in ended.jobs)


def test_what_trained_together_is_taken_over_without_blame_and_alone(tmp_path: Path) -> None:
    ledger, _ = prepare(tmp_path / "sweep", Sweep(retries=0))
    ledger.add([draft(name) for name in "xyz"], launch="a")
    program = (
        "import os, sys; from pathlib import Path\n"
        "from graftlab.sweeps.claim import claim; from graftlab.sweeps.ledger import Ledger\n"
        "from graftlab.sweeps.rules import Rules\n"
        "for _ in range(2):\n"
        "    assert claim(Ledger(Path(sys.argv[1])), 'a', rules=Rules(), retries=0)\n"
        "os._exit(9)"
    )
    worker = subprocess.Popen([sys.executable, "-c", program, str(ledger.folder)])
    assert worker.wait() == 9
    taken = [claim(ledger, "a", rules=Rules(), retries=0) for _ in range(3)]
    jobs = sorted((held.job for held in taken), key=lambda job: job.number)
    assert [(job.number, bool(job.alone), job.tries) for job in jobs] == [
        (0, True, 0),
        (1, True, 0),
        (2, False, 0),
    ]
    assert {job.attempts for job in ledger.jobs("a")} == {0}
    for held in taken:
        held.release()
