"""The ledger: numbers that stay, claims that die with their holder, one worker a job."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from graftlab.files.locks import try_lock
from graftlab.sweeps import sums
from graftlab.sweeps.claim import claim, lock_file, worker_name
from graftlab.sweeps.ledger import Ledger
from graftlab.sweeps.rules import Rules
from graftlab.sweeps.watcher import watch_job
from sweep_crew import draft

RULES = Rules()


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    ledger = Ledger(tmp_path / "sweep")
    ledger.create()
    return ledger


def test_whoever_looks_while_it_is_made_sees_no_file_or_all_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Ledger(tmp_path / "sweep")
    looks = []

    def look(db: sqlite3.Connection, real: Callable[..., None] = sums.create) -> None:
        real(db)
        looks.append(made.path.exists())

    monkeypatch.setattr(sums, "create", look)
    made.create()
    assert looks == [False]
    assert made.jobs() == []


def test_two_that_make_it_at_once_have_one(tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    program = (
        "import sys; from pathlib import Path; from graftlab.sweeps.ledger import Ledger\n"
        "ledger = Ledger(Path(sys.argv[1])); input()\n"
        "ledger.create(); ledger.put(sys.argv[2], True)"
    )
    names = ["a", "b", "c"]
    makers = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(folder), name], stdin=subprocess.PIPE, text=True
        )
        for name in names
    ]
    for maker in makers:
        maker.communicate("\n")
    assert [maker.returncode for maker in makers] == [0, 0, 0]
    assert [Ledger(folder).fact(name) for name in names] == [True, True, True]
    assert not list(folder.glob(".*"))


def take(ledger: Ledger, launch: str = "a", rules: Rules = RULES):
    return claim(ledger, launch, rules=rules, retries=1)


def test_a_job_keeps_its_number_and_folder_when_the_grid_is_widened(ledger: Ledger) -> None:
    ledger.add([draft("x", label="lr1"), draft("y", label="lr2")], launch="a")
    wider = ledger.add([draft("w"), draft("y"), draft("x"), draft("z", label="lr3")], launch="b")
    folders = {job.identity: job.folder for job in wider}
    assert folders == {"x": "0000-lr1", "y": "0001-lr2", "w": "0002", "z": "0003-lr3"}
    assert [job.identity for job in ledger.jobs("a")] == ["x", "y"]


def test_a_job_that_has_not_begun_gets_the_trunk_of_a_widened_line(ledger: Ledger) -> None:
    """Unless its former trunk has begun, which keeps the checkpoint it branches from."""

    def trunks() -> list[tuple[int | None, int | None]]:
        return [(job.trunk, job.branch_step) for job in ledger.jobs()]

    short, long, longest = (draft(name) for name in ("short", "long", "longest"))
    ledger.add([replace(short, trunk="long", branch_step=3), long], launch="a")
    assert trunks() == [(1, 3), (None, None)]
    widened = [
        replace(short, trunk="longest", branch_step=4),
        replace(long, trunk="longest", branch_step=8),
        longest,
    ]
    ledger.add(widened, launch="b")
    assert trunks() == [(2, 4), (2, 8), (None, None)]
    ledger.add([short, long], launch="c")  # of another length, say, or no longer shared
    assert trunks() == [(None, None)] * 3
    ledger.add(widened, launch="d")
    ledger.tell(2, {"step": 0})
    ledger.add([replace(short, trunk="long", branch_step=3), long], launch="e")
    assert trunks() == [(2, 4), (2, 8), (None, None)]
    ledger.add([replace(longest, trunk="short", branch_step=1)], launch="f")
    assert trunks()[2] == (None, None)


def test_a_job_that_comes_too_late_for_its_trunk_does_not_wait_for_it(ledger: Ledger) -> None:
    """A widened line asks a trunk that runs for steps behind it and before it."""
    ledger.add([draft("long")], launch="a")
    trunk = take(ledger)
    watcher = watch_job(ledger, trunk.job, RULES)
    watcher.starts(total_steps=20, steps_per_epoch=5, step=0)
    watcher.after_step({"step": 8, "loss": 1.0, "valid_loss": 1.0})
    late, soon = replace(draft("late"), branch_step=5), replace(draft("soon"), branch_step=12)
    ledger.add([draft("long"), *(replace(d, trunk="long") for d in (late, soon))], launch="b")
    assert take(ledger, "b").job.identity == "late"
    assert take(ledger, "b") is None
    assert set(watcher.keeps) == set()
    watcher.after_step({"step": 9, "loss": 1.0, "valid_loss": 1.0})
    assert set(watcher.keeps) == {5, 12}
    saved = ledger.folder / "step-000012.ckpt"
    saved.write_bytes(b"weights")
    watcher.saved(12, saved)
    assert take(ledger, "b").job.identity == "soon"


def test_jobs_are_claimed_once_and_in_order(ledger: Ledger) -> None:
    ledger.add([draft("x"), draft("y")], launch="a")
    first, second = take(ledger), take(ledger)
    assert (first.job.identity, second.job.identity) == ("x", "y")
    assert take(ledger) is None
    assert [job.state for job in ledger.jobs()] == ["running", "running"]
    ledger.end(0, "done", launch="a", score=0.5)
    first.release()
    assert take(ledger) is None
    assert ledger.jobs()[0].score == 0.5


def test_only_wanted_jobs_are_claimed(ledger: Ledger) -> None:
    ledger.add([draft("x"), draft("y")], launch="a")
    ledger.add([draft("y")], launch="b")
    assert take(ledger, "b").job.identity == "y"
    assert take(ledger, "b") is None


def test_what_the_dead_held_is_taken_over(ledger: Ledger) -> None:
    ledger.add([draft("x")], launch="a")
    program = (
        "import sys, time; from pathlib import Path\n"
        "from graftlab.sweeps.claim import claim; from graftlab.sweeps.ledger import Ledger\n"
        "from graftlab.sweeps.rules import Rules\n"
        "held = claim(Ledger(Path(sys.argv[1])), 'a', rules=Rules(), retries=1)\n"
        "print(held.job.number, flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", program, str(ledger.folder)], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout.readline() == "0\n"
    assert ledger.jobs()[0].state == "running"
    assert take(ledger) is None
    holder.kill()
    holder.wait()
    holder.stdout.close()
    again = take(ledger)
    assert again.job.number == 0
    assert again.job.tries == 1  # as if its pool had found it first
    assert ledger.jobs()[0].worker == worker_name()


def test_another_hosts_worker_is_waited_for_while_it_beats(ledger: Ledger) -> None:
    ledger.add([draft("x")], launch="a")
    with ledger.writing() as db:
        db.execute("UPDATE jobs SET state = 'running', worker = 'elsewhere:1'")
    ledger.tell(0, {"step": 3})
    assert take(ledger) is None
    with ledger.writing() as db:
        db.execute("UPDATE jobs SET beat = beat - 3600")
    assert take(ledger).job.progress == {"step": 3}


def test_somebody_served_between_our_look_and_our_lock_keeps_the_job(ledger, monkeypatch) -> None:
    import graftlab.sweeps.claim as module

    ledger.add([draft("x"), draft("y")], launch="a")

    def late(path: Path) -> int | None:
        if path.name == "0000.lock":  # another worker has claimed and finished it meanwhile
            ledger.end(0, "done", launch="a", score=1.0)
        return try_lock(path)

    monkeypatch.setattr(module, "try_lock", late)
    assert take(ledger).job.identity == "y"
    assert ledger.jobs()[0].state == "done"


def test_a_lock_is_not_inherited(ledger: Ledger) -> None:
    held = try_lock(lock_file(ledger.folder, 0))
    assert held is not None
    assert try_lock(lock_file(ledger.folder, 0)) is None
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(30)"], close_fds=False)
    try:
        os.close(held)
        for _ in range(100):  # the child may be about to become its program
            if (again := try_lock(lock_file(ledger.folder, 0))) is not None:
                break
            time.sleep(0.05)
        assert again is not None
        os.close(again)
        assert child.poll() is None
    finally:
        child.kill()
        child.wait()


def test_failed_jobs_wait_again_in_the_next_launch(ledger: Ledger) -> None:
    ledger.add([draft("x")], launch="a")
    for state in ("waiting", "failed"):
        held = take(ledger)
        ledger.end(0, state, launch="a", error="crash")
        held.release()
    assert take(ledger) is None
    (job,) = ledger.add([draft("x")], launch="b")
    assert (job.state, job.tries, job.attempts, job.error) == ("waiting", 0, 2, "crash")
    assert take(ledger, "b").job.number == 0


def test_facts_are_settled_once_or_put(ledger: Ledger) -> None:
    assert ledger.fact("threads") is None
    assert ledger.settled_fact("threads", 1) == 1
    assert ledger.settled_fact("threads", 2) == 1
    ledger.put("threads", 3)
    assert ledger.fact("threads") == 3


def test_halving_promotes_the_best_paused_and_prunes_nobody_early(ledger: Ledger) -> None:
    rules = replace(RULES, pruner="asha", reduction=2)
    ledger.add([draft(name) for name in "wxyz"], launch="a")
    at_once = [take(ledger, rules=rules) for _ in range(4)]
    for held, loss in zip(at_once, (4.0, 3.0, 2.0, 1.0), strict=True):
        ledger.reach(held.job.number, (9, 5), loss)
        ledger.end(held.job.number, "paused", launch="a")
        held.release()
    promoted = [take(ledger, rules=rules).job.number for _ in range(2)]
    assert promoted == [3, 2]
    assert take(ledger, rules=rules) is None
    assert ledger.rungs()[9, 5].promoted == {2, 3}
    ledger.prune([0, 1, 2])
    assert [job.state for job in ledger.jobs()] == ["pruned", "pruned", "running", "running"]


def test_a_verdict_is_owed_until_it_is_given(ledger: Ledger) -> None:
    """A loss without a decision is what a job leaves that was stopped between the two."""
    job = ledger.add([draft("a"), draft("b")], launch="a")[0]
    watcher = watch_job(ledger, job, Rules("asha", 2, 1.0))
    watcher.starts(total_steps=8, steps_per_epoch=2, step=2)
    assert not watcher.owes(2)  # saved there when it was no rung
    watcher.reached(2, 0.5)
    assert watcher.owes(2)
    assert watcher.verdict(2) is not None
    assert watcher.owes(2)  # killed before it was set aside
    ledger.reach(1, (8, 2), 0.9)
    assert watcher.verdict(2) is None
    assert not watcher.owes(2)
