"""One fact about this machine, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """A row of the doctor's table."""

    subject: str
    """What was looked at: `cpu bf16`, `disk`."""
    value: str
    """What was found."""
    cure: str | None = None
    """What to do about it; None where nothing is amiss."""
    broken: bool = False
    """Whether training cannot work before the cure."""
