"""What is a launch's own: its rules, its facts, its end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import sweep_crew
from graftlab.errors import GraftlabError
from graftlab.sweeps.engine import launch, own_facts, prepare
from graftlab.sweeps.launches import forget_the_dead, give_up_paused, present
from graftlab.sweeps.ledger import Ledger
from graftlab.sweeps.pool import Pool
from graftlab.sweeps.slots import Slot
from graftlab.sweeps.source import Grid
from graftlab.sweeps.spec import Sweep
from sweep_crew import Pretender, draft

CREW = (sweep_crew.__file__,)


def rows(ledger: Ledger, table: str) -> list[tuple[object, ...]]:
    with ledger.reading() as db:
        return [tuple(row) for row in db.execute(f"SELECT * FROM {table}")]


def run(ledger: Ledger, source: Grid, *, retries: int = 1, program=CREW, **more):
    return launch(
        ledger,
        source,
        lambda name: Pool(ledger, name, [Slot("cpu")], retries, program=program),
        slots=1,
        **more,
    )


def test_each_launch_keeps_its_rules_and_retries(tmp_path: Path) -> None:
    thorough = Sweep(retries=2, pruner="median")
    ledger, rules = prepare(tmp_path, thorough)
    prepare(tmp_path, Sweep(retries=0))  # another line, before this one has begun
    seen = []

    def watch(jobs) -> None:
        for key, _ in rows(ledger, "facts"):
            if str(key).startswith("rules ") and not seen:
                worker = Pretender(ledger, str(key).split()[1])
                seen.append((worker.rules, worker.retries))

    source = Grid([draft("x", act="broken")])
    ended = run(ledger, source, retries=2, facts=own_facts(rules, thorough), watch=watch)
    assert seen == [(rules, 2)]
    assert rules.pruner == "median"
    starts = (tmp_path / ended.jobs[0].folder / "starts.txt").read_text()
    assert len(starts.splitlines()) == 3
    other = Pretender(ledger, "of another")
    assert (other.rules.pruner, other.retries) == ("none", 0)


def test_nothing_of_a_launch_stays_but_its_jobs(tmp_path: Path) -> None:
    ledger, rules = prepare(tmp_path, Sweep())
    before = rows(ledger, "facts")
    ended = run(ledger, Grid([draft("x")]), facts=own_facts(rules, Sweep()))
    assert ended.count("done") == 1
    with pytest.raises(GraftlabError):
        run(ledger, Grid([draft("y")]), program=("-c", "import nothing_of_this_name"))
    assert rows(ledger, "facts") == before
    assert rows(ledger, "wanted") == rows(ledger, "claimants") == []
    assert not list((tmp_path / "locks").glob("launch-*"))
    assert [job.state for job in ledger.jobs()] == ["done", "waiting"]


def test_a_timeout_is_noted_once_and_nothing_enters_after_it(tmp_path: Path, monkeypatch) -> None:
    class Endless(Grid):
        asked = 0

        def draw(self, jobs, rungs, *, room):
            Endless.asked += 1
            return [draft(f"job {Endless.asked}")]

    ledger, _ = prepare(tmp_path, Sweep())
    noted = []
    put = ledger.put
    monkeypatch.setattr(ledger, "put", lambda key, value: (noted.append(key), put(key, value)))
    slow = ("-c", "import time; time.sleep(1.5)")
    run(ledger, Endless([]), program=slow, timeout=1e-6)
    assert len([key for key in noted if key.startswith("halted ")]) == 1
    assert Endless.asked == len(ledger.jobs()) == 1


def test_paused_jobs_are_given_up_when_no_launch_wants_what_is_left(tmp_path: Path) -> None:
    ledger, _ = prepare(tmp_path, Sweep())
    ledger.add([draft("left behind")], launch="b")
    ledger.add([draft("paused")], launch="a")
    ledger.end(1, "paused", launch="a")
    give_up_paused(ledger, "a")
    assert ledger.jobs()[1].state == "paused"  # the other launch may still promote it
    with ledger.writing() as db:
        db.execute("DELETE FROM wanted WHERE launch = 'b'")
    give_up_paused(ledger, "a")
    assert [job.state for job in ledger.jobs()] == ["waiting", "pruned"]


KILLED = """
import os, signal, sys
from pathlib import Path
from graftlab.sweeps.engine import launch, own_facts, prepare
from graftlab.sweeps.source import Grid
from graftlab.sweeps.spec import Sweep
from sweep_crew import draft

class Workers:
    def start(self): os.kill(os.getpid(), signal.SIGKILL)

ledger, rules = prepare(Path(sys.argv[1]), Sweep())
own = own_facts(rules, Sweep())
launch(ledger, Grid([draft("left")]), lambda name: Workers(), slots=1, facts=own)
"""


def test_what_a_killed_launch_has_left_is_removed_by_the_next(tmp_path: Path) -> None:
    ledger, _ = prepare(tmp_path, Sweep())
    before = rows(ledger, "facts")
    paths = os.pathsep.join(path for path in sys.path if path)
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": paths},
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL
    (left,) = ((key.split()[1]) for key, _ in rows(ledger, "facts") if key.startswith("rules "))
    assert rows(ledger, "wanted") == [(left, 0, 0, 0)]
    ended = run(ledger, Grid([draft("mine")]))
    assert [job.state for job in ledger.jobs()] == ["waiting", "done"]
    assert ended.count("done") == 1
    assert rows(ledger, "facts") == before
    assert rows(ledger, "wanted") == rows(ledger, "claimants") == []
    assert not list((tmp_path / "locks").glob("launch-*"))


def test_only_the_dead_of_this_host_are_forgotten(tmp_path: Path) -> None:
    ledger, _ = prepare(tmp_path, Sweep())
    ledger.put("home elsewhere", "another-host")
    ledger.put("closed of-a-cluster", True)
    with present(ledger) as name:
        ledger.add([draft("x")], launch=name)
        forget_the_dead(ledger)
        assert rows(ledger, "wanted") == [(name, 0, 0, 0)]
        assert ledger.fact(f"home {name}") is not None
    kept = {key for key, _ in rows(ledger, "facts")}
    assert {"home elsewhere", "closed of-a-cluster"} <= kept
    assert f"home {name}" not in kept
