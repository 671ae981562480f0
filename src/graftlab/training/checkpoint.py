"""Checkpoints: adapter, optimizer and progress only; atomic, synced, refused if foreign."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from graftlab.errors import ConfigError, require_range


@dataclass(kw_only=True, slots=True)
class Checkpointing:
    """The `checkpoint` node: when to save and what to keep."""

    every_epochs: int = 1
    """Save after every N epochs; the end of the run is always saved."""
    every_steps: int | None = None
    """Also save after every N optimizer steps."""
    keep: Any = 2
    """How many of the best (by validation loss) to keep besides the last; `all` keeps every one."""

    def __post_init__(self) -> None:
        require_range("checkpoint.every_epochs", self.every_epochs, least=1)
        require_range("checkpoint.every_steps", self.every_steps, least=1)
        if self.keep != "all" and not (isinstance(self.keep, int) and self.keep >= 1):
            raise ConfigError(f"checkpoint.keep={self.keep} must be a number of at least 1, or all.")
