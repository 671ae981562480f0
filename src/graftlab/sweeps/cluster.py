"""A sweep's workers on machines that a cluster lends: what its kinds have in common.

A cluster starts node agents; they fall away when their time is up, their node dies or nothing is
left to do. While jobs are open, as many are started anew, unless those before achieved nothing.
"""

from __future__ import annotations

import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence

from graftlab.errors import GraftlabError
from graftlab.plugins import plugin_environment
from graftlab.sweeps.launchers.base import Launcher, LaunchRequest
from graftlab.sweeps.node_agent import NodeAgent
from graftlab.sweeps.pool import PROGRAM, STILLBORN
from graftlab.sweeps.rules import Rules, startable
from graftlab.sweeps.slots import Slot

WATCH_SECONDS = 30.0
"""Between two notes in the ledger that somebody watches the launch."""
MOST = 16
"""Workers at once where `launcher.slots` does not say."""
ENDED = ("done", "failed", "paused", "pruned")


def slots_elsewhere(launcher: Launcher, work: LaunchRequest, *, name: str, cpus: int) -> list[Slot]:
    """Slots of `cpus` cores on nodes that are not known yet."""
    count = min(launcher.slots or MOST, max(1, work.jobs))
    threads = launcher.threads or max(1, cpus // work.devices)
    return [Slot(f"{name} {i}", {"OMP_NUM_THREADS": str(threads)}) for i in range(count)]


class Cluster(ABC):
    """Keeps as many node agents as there are slots, or open jobs if these are fewer."""

    parting = "saved; the same line goes on."
    program = PROGRAM

    def __init__(self, work: LaunchRequest, slots: Sequence[Slot], launch: str) -> None:
        self.ledger, self.retries = work.ledger, work.retries
        self.slots, self.launch = slots, launch
        self.stopping = False
        self._brought = -1.0  # jobs ended and steps taken: the most, as a job may be tried again
        self._in_vain = 0  # replacements since then that brought nothing on
        self._watched = 0.0

    @abstractmethod
    def begin(self) -> None:
        """Reach the cluster, and find the agents of an earlier start that are still there."""

    @abstractmethod
    def submit(self, count: int) -> None:
        """Ask the cluster for `count` more node agents."""

    @abstractmethod
    def present(self) -> int:
        """How many agents run or are about to; forgets those that ended."""

    @abstractmethod
    def last_words(self) -> str:
        """What agents that ended have said, for people."""

    @abstractmethod
    def stop(self, number: int = signal.SIGTERM) -> None:
        """Tell every worker to save and leave."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the cluster."""

    def agent(self) -> NodeAgent:
        """A node agent of this launch, for the cluster to carry away."""
        return NodeAgent(
            self.ledger.folder.resolve(),
            self.launch,
            environment={**plugin_environment(), **self.slots[0].environment},
            retries=self.retries,
            program=self.program,
        )

    def start(self) -> None:
        self._watch()
        self.begin()
        missing = min(len(self.slots), len(self._open())) - self.present()
        if missing > 0 and not self.stopping:
            self._submit(missing)

    def poll(self) -> bool:
        """Replace agents that are gone. Raises GraftlabError if that brings nothing on."""
        self._watch()
        present = self.present()
        if self.stopping or self.ledger.fact(f"halted {self.launch}"):
            return present > 0
        missing = min(len(self.slots), len(self._open())) - present
        if missing > 0:
            self._count_loss()
            self._submit(missing)
            return True
        return present > 0

    def _submit(self, count: int) -> None:
        self.submit(count)
        if self.stopping:  # told meanwhile, by a signal handler that did not know of these
            self.stop()

    def _count_loss(self) -> None:
        jobs = self.ledger.jobs(self.launch)
        brought = sum((job.state in ENDED) + job.progress.get("step", 0) for job in jobs)
        self._in_vain = 0 if brought > self._brought else self._in_vain + 1
        self._brought = max(brought, self._brought)
        if self._in_vain >= STILLBORN:
            raise GraftlabError(
                "The cluster's workers end before they have brought a job on. The last of them "
                f"said:\n{self.last_words()}"
            )

    def _open(self) -> set[int]:
        """Jobs that a worker could still be needed for, those that may be promoted among them."""
        jobs = self.ledger.jobs(self.launch)
        rules = Rules(**self.ledger.fact("rules", self.launch))
        ready = startable(
            jobs, self.ledger.rungs(), rules, folder=self.ledger.folder, retries=self.retries
        )
        behind_trunks = {
            job.number for job in jobs if job.state == "waiting" and job.trunk is not None
        }
        return behind_trunks | {job.number for job, _ in ready}

    def _watch(self) -> None:
        if time.monotonic() - self._watched > WATCH_SECONDS or not self._watched:
            self._watched = time.monotonic()
            self.ledger.put(f"watched {self.launch}", time.time())
