"""`launcher=ray`: workers as actors on a Ray cluster whose nodes share the sweep's folder."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from graftlab.console import say
from graftlab.errors import GraftlabError, require_range
from graftlab.registry import choice
from graftlab.sweeps.cluster import Cluster, slots_elsewhere
from graftlab.sweeps.launchers.base import Launcher, LaunchRequest, Workers
from graftlab.sweeps.node_agent import NodeAgent
from graftlab.sweeps.pool import KILLED, LONGEST_STOP
from graftlab.sweeps.slots import Slot

CALLS = 3
"""Of a host at once: it runs, is told to save, and is told not to wait for that."""


@choice("ray")
@dataclass(kw_only=True, slots=True)
class RayLauncher(Launcher):
    """`launcher=ray`: each slot is an actor that asks the cluster for GPUs and cores."""

    address: str | None = None
    """Of a running cluster, `auto` for the one this machine belongs to; null starts one here."""
    gpus_per_job: float | None = None
    """GPUs of a worker; null: one for each of trainer.devices where the cluster has any."""
    cpus_per_job: int = 1
    """Cores of a worker."""

    def __post_init__(self) -> None:
        Launcher.__post_init__(self)
        require_range("launcher.gpus_per_job", self.gpus_per_job, least=0)
        require_range("launcher.cpus_per_job", self.cpus_per_job, least=1)

    def places(self, work: LaunchRequest) -> list[Slot]:
        return slots_elsewhere(self, work, name="ray", cpus=self.cpus_per_job)

    def workers(self, work: LaunchRequest, slots: list[Slot], launch: str) -> Workers:
        return Actors(self, work, slots, launch)


class _Host:
    """The actor: a node agent that can be spoken to while it works."""

    def __init__(self, agent: NodeAgent) -> None:
        self.agent = agent

    def run(self) -> None:
        self.agent()

    def leave(self, number: int) -> None:
        self.agent.leave(signal.Signals(number))


class Actors(Cluster):
    """Node agents as actors. They end with this process, as all that a driver of Ray starts."""

    def __init__(
        self, launcher: RayLauncher, work: LaunchRequest, slots: Sequence[Slot], launch: str
    ) -> None:
        super().__init__(work, slots, launch)
        self.launcher, self.work = launcher, work
        self.ray: Any = None
        self.actors: dict[Any, Any] = {}
        """What an agent answers when it has ended -> its actor."""
        self._said = "nothing"

    def begin(self) -> None:
        try:
            import ray
        except ImportError:
            raise GraftlabError("launcher=ray needs Ray: pip install 'graftlab[ray]'") from None
        self.ray = ray
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anybody
        address = self.launcher.address or os.environ.get("RAY_ADDRESS")
        settings: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.WARNING}
        if not address:
            settings["include_dashboard"] = False
        handlers = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)}
        try:
            ray.init(address=address, **settings)
        except ConnectionError as problem:
            raise GraftlabError(f"launcher.address={address}: {problem}") from problem
        finally:
            for number, handler in handlers.items():  # Ray has put one of its own over ours
                signal.signal(number, handler)
        self._look_for_room()

    def submit(self, count: int) -> None:
        host = self.ray.remote(max_concurrency=CALLS, **self._demands())(_Host)
        for _ in range(count):
            actor = host.remote(self.agent())
            self.actors[actor.run.remote()] = actor

    def present(self) -> int:
        if not self.actors:
            return 0
        ended, _ = self.ray.wait(list(self.actors), num_returns=len(self.actors), timeout=0)
        for answer in ended:
            try:
                self.ray.get(answer)
            except self.ray.exceptions.RayError as problem:
                self._said = str(problem)
            self.ray.kill(self.actors.pop(answer))
        return len(self.actors)

    def last_words(self) -> str:
        return "\n".join(self._said.splitlines()[-20:])

    def stop(self, number: int = signal.SIGTERM) -> None:
        self.stopping = True
        if number == signal.SIGKILL:
            self.parting = KILLED
        for actor in self.actors.values():
            actor.leave.remote(int(number))

    def close(self) -> None:
        if self.ray is None or not self.ray.is_initialized():
            return
        if self.actors and not self.stopping:
            self.stop()
        deadline = time.monotonic() + LONGEST_STOP
        while self.present() and time.monotonic() < deadline:
            time.sleep(0.2)
        self.ray.shutdown()

    def _demands(self) -> dict[str, float]:
        gpus = self.launcher.gpus_per_job
        if gpus is None:
            wanted = self.work.accelerator == "cuda"
            wanted |= self.work.accelerator == "auto" and "GPU" in self.ray.cluster_resources()
            gpus = self.work.devices if wanted else 0
        return {"num_cpus": self.launcher.cpus_per_job, "num_gpus": gpus}

    def _look_for_room(self) -> None:
        """Say so where no node could ever hold a worker: a cluster that grows may get one."""
        demands = self._demands()
        needed = {"CPU": demands["num_cpus"], "GPU": demands["num_gpus"]}
        nodes = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
        if not any(all(node.get(k, 0) >= n for k, n in needed.items()) for node in nodes):
            say(
                f"No node of the cluster has {needed['CPU']} cores and {needed['GPU']} GPUs for a "
                "worker (launcher.cpus_per_job, launcher.gpus_per_job): waiting for one."
            )
