"""Signs of life of a claimed job, and what its worker does when it was given up for dead."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from graftlab.sweeps.claim import claim
from graftlab.sweeps.engine import prepare
from graftlab.sweeps.heartbeat import heartbeats
from graftlab.sweeps.ledger import Ledger
from graftlab.sweeps.rules import Rules
from graftlab.sweeps.spec import Sweep
from sweep_crew import draft


def claimed(folder: Path) -> Ledger:
    ledger, _ = prepare(folder, Sweep())
    ledger.add([draft("x")], launch="a")
    assert claim(ledger, "a", rules=Rules(), retries=0) is not None
    return ledger


def wait(holds) -> None:
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_job_that_takes_no_step_still_gives_signs_of_life(tmp_path: Path) -> None:
    ledger = claimed(tmp_path)
    first = ledger.jobs()[0].beat
    with heartbeats(ledger, 0, every=0.02, lost=lambda: None):
        wait(lambda: ledger.jobs()[0].beat > first)
    ledger.end(0, "waiting", launch="a")
    last = ledger.jobs()[0]
    time.sleep(0.1)
    assert ledger.jobs()[0] == last


def test_a_worker_learns_that_its_job_was_taken_over(tmp_path: Path) -> None:
    ledger, lost = claimed(tmp_path), threading.Event()
    with heartbeats(ledger, 0, every=0.02, lost=lost.set):
        assert not lost.wait(0.1)
        with ledger.writing() as db:
            db.execute("UPDATE jobs SET worker = 'elsewhere:1', beat = 1.0")
        assert lost.wait(20)
    assert ledger.jobs()[0].beat == 1.0  # the other's sign is left alone
