"""Signals that come while workers are being started: none is lost."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest

from graftlab.errors import Interrupted
from graftlab.sweeps.cluster import Cluster
from graftlab.sweeps.engine import launch, prepare
from graftlab.sweeps.launchers.base import LaunchRequest
from graftlab.sweeps.pool import Pool
from graftlab.sweeps.slots import Slot
from graftlab.sweeps.source import Grid
from graftlab.sweeps.spec import Sweep
from sweep_crew import draft

SLOTS = [Slot(f"cpu {i}") for i in range(3)]
SLEEPER = ("-c", "import time; time.sleep(60)")


def test_a_pool_that_was_stopped_starts_nobody(tmp_path: Path) -> None:
    ledger, _ = prepare(tmp_path, Sweep())
    pool = Pool(ledger, "a", SLOTS, 1, program=SLEEPER)
    pool.stop()
    pool.start()
    assert not pool.poll()


def test_a_signal_between_two_starts_reaches_every_worker(tmp_path: Path, monkeypatch) -> None:
    real, started = subprocess.Popen, []

    def popen(*command, **more):
        started.append(real(*command, **more))
        if len(started) == 2:  # the signal arrives before the pool has noted the second
            signal.raise_signal(signal.SIGTERM)
        return started[-1]

    ledger, _ = prepare(tmp_path, Sweep())
    monkeypatch.setattr(subprocess, "Popen", popen)
    with pytest.raises(Interrupted, match="SIGTERM"):
        launch(
            ledger,
            Grid([draft("x")]),
            lambda name: Pool(ledger, name, SLOTS, 1, program=SLEEPER),
            slots=3,
        )
    assert [process.wait(20) for process in started] == [-signal.SIGTERM] * 2
    assert ledger.jobs()[0].state == "waiting"


class Lent(Cluster):
    """A cluster of which only is known what it was asked for."""

    def __init__(self, work: LaunchRequest, *, stops_in: str) -> None:
        super().__init__(work, SLOTS[:2], "a")
        self.stops_in, self.agents, self.told = stops_in, 0, 0

    def begin(self) -> None:
        if self.stops_in == "begin":
            self.stop()

    def submit(self, count: int) -> None:
        for _ in range(count):
            if self.stops_in == "submit" and self.agents == 1:
                self.stop()
            self.agents += 1

    def present(self) -> int:
        return self.agents

    def last_words(self) -> str:
        return ""

    def stop(self, number: int = signal.SIGTERM) -> None:
        self.stopping, self.told = True, self.agents

    def close(self) -> None:
        pass


@pytest.mark.parametrize(("stops_in", "asked_for"), [("begin", 0), ("submit", 2), ("never", 2)])
def test_a_signal_while_a_cluster_is_reached(tmp_path: Path, stops_in: str, asked_for: int) -> None:
    ledger, _ = prepare(tmp_path, Sweep())
    ledger.add([draft("x"), draft("y")], launch="a")
    work = LaunchRequest(
        ledger=ledger, retries=1, jobs=2, accelerator="cpu", devices=1, base_bytes=0.0
    )
    cluster = Lent(work, stops_in=stops_in)
    cluster.start()
    assert cluster.agents == asked_for
    assert cluster.told == (0 if stops_in == "never" else asked_for)
