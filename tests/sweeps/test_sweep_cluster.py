"""What all clusters do for their node agents, on one that is made of numbers."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path

import pytest

from graftlab.errors import GraftlabError
from graftlab.sweeps.cluster import Cluster
from graftlab.sweeps.engine import prepare
from graftlab.sweeps.launchers.base import LaunchRequest
from graftlab.sweeps.launchers.ray import Actors, RayLauncher
from graftlab.sweeps.ledger import Ledger
from graftlab.sweeps.node_agent import NodeAgent
from graftlab.sweeps.pool import KILLED, STILLBORN, Pool
from graftlab.sweeps.slots import Slot
from graftlab.sweeps.spec import Sweep
from sweep_crew import draft


class Fleeting(Cluster):
    """Its agents are gone whenever somebody looks."""

    submitted = 0

    def begin(self) -> None:
        pass

    def submit(self, count: int) -> None:
        self.submitted += count

    def present(self) -> int:
        return 0

    def last_words(self) -> str:
        return "preempted"

    def stop(self, number: int = signal.SIGTERM) -> None:
        pass

    def close(self) -> None:
        pass


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    ledger, _ = prepare(tmp_path, Sweep())
    ledger.add([draft("long"), draft("other")], launch="a")
    return ledger


@pytest.fixture
def cluster(ledger: Ledger) -> Fleeting:
    work = LaunchRequest(
        ledger=ledger, retries=1, jobs=2, accelerator="cpu", devices=1, base_bytes=0.0
    )
    return Fleeting(work, [Slot("0"), Slot("1")], "a")


def test_agents_are_replaced_as_long_as_jobs_take_steps(cluster: Fleeting, ledger: Ledger) -> None:
    """Of a long job each may bring a few steps only, before its node is taken back."""
    cluster.start()
    for step in range(1, 5 * STILLBORN):
        ledger.tell(0, {"step": step, "total_steps": 1000})
        assert cluster.poll()
    assert cluster.submitted == 2 * 5 * STILLBORN


def test_agents_that_bring_nothing_on_are_given_up(cluster: Fleeting, ledger: Ledger) -> None:
    """Also where a job takes the same steps again and again, and never gets to save."""
    cluster.start()
    ledger.tell(0, {"step": 8, "total_steps": 1000})
    assert cluster.poll()
    for turn in range(STILLBORN - 1):
        ledger.tell(0, {"step": 4 + turn % 2, "total_steps": 1000})
        assert cluster.poll()
    with pytest.raises(GraftlabError, match="preempted"):
        cluster.poll()


STUBBORN = """
import signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
open(sys.argv[1] + "/begun", "w").close()
time.sleep(30)
"""


def test_a_second_signal_does_not_wait_for_what_the_first_is_saving(ledger: Ledger) -> None:
    agent = NodeAgent(ledger.folder, "a", environment={}, retries=0, program=("-c", STUBBORN))
    threads = [threading.Thread(target=call) for call in (agent, agent.leave)]
    threads[0].start()
    while not (ledger.folder / "begun").exists():
        time.sleep(0.05)
    threads[1].start()
    threads[1].join(0.7)
    assert threads[1].is_alive()  # saving takes its time
    began = time.monotonic()
    agent.leave(signal.SIGKILL)
    assert time.monotonic() - began < 10
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()


def test_after_a_kill_nobody_is_told_that_all_was_saved(ledger: Ledger) -> None:
    work = LaunchRequest(
        ledger=ledger, retries=1, jobs=2, accelerator="cpu", devices=1, base_bytes=0.0
    )
    for workers in (Actors(RayLauncher(), work, [], "a"), Pool(ledger, "a", [], 1)):
        workers.stop()
        assert "saved" in workers.parting
        workers.stop(signal.SIGKILL)
        assert workers.parting == KILLED
