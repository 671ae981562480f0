"""What the ledger holds: jobs before and after they have a number, and the rungs they reached."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

STATES = ("waiting", "running", "paused", "done", "failed", "pruned")


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJob:
    """A job before it has a number."""

    identity: str
    label: str
    """What differs, short, as it goes into the folder's name."""
    swept: Mapping[str, str]
    spec: Mapping[str, Any]
    """`registry.dump` of the run's specification."""
    trunk: str | None = None
    """Identity of the job from whose checkpoint this one branches."""
    branch_step: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One row of the ledger."""

    number: int
    identity: str
    folder: str
    """Name of the run folder in the sweep's folder."""
    swept: dict[str, str]
    state: str = "waiting"
    attempts: int = 0
    tries: int = 0
    """How often the present launch has started it without success."""
    alone: int = 0
    """1 where jobs that trained together failed, and it was one of them."""
    error: str | None = None
    score: float | None = None
    """`Result.rank`: less is better."""
    worker: str | None = None
    beat: float | None = None
    trunk: int | None = None
    branch_step: int | None = None
    progress: dict[str, float]
    """step, total_steps, epoch, loss, valid_loss, tokens_per_second, as last told."""

    @property
    def name(self) -> str:
        """For people: number and swept values."""
        return " ".join([f"job {self.number}", *(f"{k}={v}" for k, v in self.swept.items())])


Place = tuple[int, int]
"""(steps in all, step of the rung): only jobs of equal length are compared, as a schedule that
decays over fewer steps is ahead of a longer one at every rung."""


@dataclass(slots=True)
class Rung:
    """What is known of one rung: job -> validation loss, or what else jobs
    are compared by, less being better; and who was let go on from it."""

    losses: dict[int, float] = field(default_factory=dict)
    promoted: set[int] = field(default_factory=set)
