"""The `launcher` group: where the jobs of a sweep run, and how many at once."""

from __future__ import annotations

import signal
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Protocol

from graftlab.errors import require_range
from graftlab.registry import group
from graftlab.sweeps.ledger import Ledger
from graftlab.sweeps.slots import Slot, find_slots


class Workers(Protocol):
    """What a launcher starts: worker processes here, on a cluster, or anywhere."""

    @property
    def parting(self) -> str:
        """What people are told when a signal has ended the launch."""

    def start(self) -> None:
        """Start the workers; they claim jobs from the ledger by themselves."""

    def poll(self) -> bool:
        """Look after the workers; whether any is left."""

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Tell every worker to save and leave."""

    def close(self) -> None:
        """Stop what still runs and wait for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchRequest:
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


@group("launcher")
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

    def places(self, work: LaunchRequest) -> list[Slot]:
        """The slots on this machine."""
        return find_slots(
            self.slots,
            self.threads,
            accelerator=work.accelerator,
            devices=work.devices,
            base_bytes=work.base_bytes,
            jobs=work.jobs,
        )

    @abstractmethod
    def workers(self, work: LaunchRequest, slots: list[Slot], launch: str) -> Workers:
        """The workers of one launch, not yet started."""
