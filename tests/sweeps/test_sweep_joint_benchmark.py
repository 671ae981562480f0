"""Joint or local: what was measured is kept, what could not be is asked again."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from graftlab.errors import DataError
from graftlab.sweeps import joint_benchmark as module
from graftlab.sweeps.engine import prepare
from graftlab.sweeps.joint_benchmark import PROGRAM, measure_joint
from graftlab.sweeps.ledger import Ledger
from graftlab.sweeps.slots import Slot
from graftlab.sweeps.spec import Sweep
from sweep_runs import jobs_of, small_run

SLOT = Slot("cpu", {"OMP_NUM_THREADS": "1"})
DIES = "import sys; sys.exit('no room')"
CANNOT = """print('[null, "it cannot be measured"]')"""
FINDS = """
import select
assert not select.select([0], [], [], 0.2)[0], "the parent holds the input open"
print("some words\\nstage: timed passes\\n[true, \\"it is faster\\"]")
"""


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    made, _ = prepare(tmp_path / "sweep", Sweep())
    made.add(jobs_of(small_run(tmp_path), (1e-3, 2e-3)), launch="a")
    return made


def measured(monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    monkeypatch.setattr(module, "PROGRAM", ("-c", program))


def test_only_what_was_measured_is_kept(ledger, monkeypatch) -> None:
    for program, reason in ((DIES, "no room"), (CANNOT, "it cannot be measured")):
        measured(monkeypatch, program)
        together, why = measure_joint(ledger, "a", SLOT, at_once=2)
        assert not together
        assert reason in why
        assert ledger.fact("joint") is None
    assert measure_joint(ledger, "a", SLOT, at_once=1) == (
        False,
        "every worker has one job at most",
    )
    nobody = measure_joint(ledger, "another launch", SLOT, at_once=2)
    assert nobody == (False, "no two jobs that wait can share a base")
    assert ledger.fact("joint") is None
    measured(monkeypatch, FINDS)
    assert measure_joint(ledger, "a", SLOT, at_once=2) == (True, "it is faster")
    measured(monkeypatch, DIES)
    assert measure_joint(ledger, "a", SLOT, at_once=2) == (True, "it is faster")


def test_people_are_told_that_and_how_far_it_is_measured(ledger, monkeypatch, capsys) -> None:
    measured(monkeypatch, FINDS)
    measure_joint(ledger, "a", SLOT, at_once=2)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("launcher=auto: measuring whether up to 2 jobs train faster")
    assert lines[1:] == ["launcher=auto: timed passes"]
    measure_joint(ledger, "a", SLOT, at_once=2)  # known by now
    assert capsys.readouterr().out == ""


def test_a_search_is_not_measured(ledger, monkeypatch) -> None:
    measured(monkeypatch, FINDS)
    together, why = measure_joint(ledger, "a", SLOT, at_once=2, search=True)
    assert not together
    assert why == "a search starts jobs as others end"
    assert ledger.fact("joint") is None


def test_data_is_supplied_before_anything_is_measured(ledger, monkeypatch) -> None:
    told = []

    def ensure_dataset(data):
        told.append(data.train)
        if len(told) == 1:
            raise DataError("the recipe has no rows")

    monkeypatch.setattr(module, "ensure_dataset", ensure_dataset)
    measured(monkeypatch, FINDS)
    together, why = measure_joint(ledger, "a", SLOT, at_once=2)
    assert not together
    assert "the recipe has no rows" in why
    assert measure_joint(ledger, "a", SLOT, at_once=2)[0]
    assert told == [ledger.spec(0)["data"]["train"]] * 2


def test_without_a_parent_nothing_is_measured(ledger) -> None:
    command = [sys.executable, *PROGRAM, str(ledger.folder), "0", "1"]
    left = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=60
    )
    assert left.returncode == 128 + signal.SIGTERM
    assert left.stdout == ""
