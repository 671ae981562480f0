"""What a launcher starts, as the engine of a sweep sees it."""

from __future__ import annotations

import signal
from typing import Protocol


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
