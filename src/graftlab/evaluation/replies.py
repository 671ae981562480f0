"""What is judged: replies, by whom, to which prompt."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from graftlab.generation.prompts import Prompt


@dataclass(frozen=True, slots=True)
class Said:
    """A reply, as the cache keeps it."""

    text: str
    num_tokens: int
    """Tokens drawn, the stop token included; 0 where an endpoint does not count them."""
    stopped: bool
    """The model ended its turn; otherwise it ran into a limit."""
    seconds: float
    """Its share of the time of its batch, by tokens: over many replies they add up. Of an endpoint,
    that of its own request."""

    def as_row(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of_row(cls, row: dict[str, Any] | None) -> Said | None:
        """The reply that `as_row` wrote; None for a row of something else."""
        if row is None or row.keys() != {"text", "num_tokens", "stopped", "seconds"}:
            return None
        return cls(**row)


@dataclass(frozen=True, slots=True)
class Case:
    """One reply with what it answers."""

    prompt: Prompt
    said: Said
    likelihoods: tuple[float, ...] = ()
    """Log-likelihood of each option of the prompt, in nats, where a metric asks for them."""


Judged = dict[str, float | None]
"""Measure -> score of one reply; None where it says nothing of this reply."""
