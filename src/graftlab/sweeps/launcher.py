"""The `launcher` group: where the jobs of a sweep run, and how many at once."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

from graftlab.errors import require_range

if TYPE_CHECKING:
    from graftlab.sweeps.engine import Workers
    from graftlab.sweeps.ledger import Ledger
    from graftlab.sweeps.slots import Slot


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What a launcher is to find workers for."""

    ledger: Ledger
    retries: int
    jobs: int
    """How many may run at once at most."""
    accelerator: str
    """The trainer's: auto, cpu, cuda or mps."""
    devices: int
    """Processes of one job."""
    base_bytes: float
    """Size of the base's weights on disk."""


@dataclass(kw_only=True, slots=True)
class Launcher(ABC):
    """What every launcher choice shares."""

    slots: int | None = None
    """Jobs that run at once; null: one on each GPU, or as many as processors and memory carry."""
    threads: int | None = None
    """CPU threads of each slot; null divides the processor's cores among the slots."""

    def __post_init__(self) -> None:
        require_range("launcher.slots", self.slots, least=1)
        require_range("launcher.threads", self.threads, least=1)

    @property
    def launch_name(self) -> str | None:
        """Name of its launches where workers outlive the process that started them."""
        return None

    def places(self, work: Work) -> list[Slot]:
        """The slots on this machine."""
        from graftlab.sweeps.slots import find_slots

        return find_slots(
            self,
            accelerator=work.accelerator,
            devices=work.devices,
            base_bytes=work.base_bytes,
            jobs=work.jobs,
        )

    @abstractmethod
    def workers(self, work: Work, slots: list[Slot], launch: str) -> Workers:
        """The workers of one launch, not yet started."""


@dataclass(kw_only=True, slots=True)
class LocalLauncher(Launcher):
    """`launcher=local`: worker processes on this machine, each with its own loaded base."""

    def workers(self, work: Work, slots: list[Slot], launch: str) -> Workers:
        from graftlab.sweeps.pool import Pool

        return Pool(work.ledger, launch, slots, work.retries)


@dataclass(kw_only=True, slots=True)
class AutoLauncher(LocalLauncher):
    """`launcher=auto`: joint where jobs can share a base and that measures faster, else local."""


@dataclass(kw_only=True, slots=True)
class JointLauncher(Launcher):
    """`launcher=joint`: adapters that share a base and rows are trained together on it.

    Each slot holds a base of its own; `launcher.slots=1` trains all on one.
    """

    most: int = 16
    """Adapters that train together at once."""

    def __post_init__(self) -> None:
        Launcher.__post_init__(self)
        require_range("launcher.most", self.most, least=1)

    def at_once(self, work: Work, slots: int) -> int:
        """How many adapters one of so many workers takes, so that all have work."""
        return min(self.most, math.ceil(work.jobs / slots))

    def workers(self, work: Work, slots: list[Slot], launch: str) -> Workers:
        from graftlab.sweeps.pool import Pool

        together = ("--joint", str(self.at_once(work, len(slots))))
        return Pool(work.ledger, launch, slots, work.retries, extra=together)
