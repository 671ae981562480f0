"""Learning-rate schedules: a factor of `lr` as a function of the optimizer step."""

from __future__ import annotations

import math
from dataclasses import dataclass

from graftlab.errors import ConfigError, require_choice, require_range

SHAPES = ("cosine", "linear", "constant", "wsd")


@dataclass(kw_only=True, slots=True)
class Schedule:
    """`schedule=cosine|linear|constant|warmup|wsd`; at most one of the three warm-ups is given."""

    shape: str = "cosine"
    """After the warm-up: cosine, linear, constant, or wsd (constant, then a linear decay)."""
    warmup_steps: int | None = None
    """Warm-up length in optimizer steps."""
    warmup_ratio: float | None = None
    """Warm-up length as a share of all steps."""
    warmup_epochs: float | None = None
    """Warm-up length in epochs."""
    decay_ratio: float = 0.2
    """wsd only: the share of all steps spent decaying at the end (arXiv 2404.06395)."""
    final_factor: float = 0.0
    """Where cosine, linear and wsd end, as a factor of lr."""

    def __post_init__(self) -> None:
        require_choice("schedule.shape", self.shape, SHAPES)
        given = [
            name
            for name in ("warmup_steps", "warmup_ratio", "warmup_epochs")
            if getattr(self, name) is not None
        ]
        if len(given) > 1:
            raise ConfigError(
                "schedule: "
                + " and ".join(given)
                + " are both set; keep one and set the other to null."
            )
        require_range("schedule.warmup_steps", self.warmup_steps, least=0)
        require_range("schedule.warmup_ratio", self.warmup_ratio, least=0, most=1)
        require_range("schedule.warmup_epochs", self.warmup_epochs, least=0)
        require_range("schedule.decay_ratio", self.decay_ratio, least=0, most=1)
        require_range("schedule.final_factor", self.final_factor, least=0, most=1)

    def warmup(self, *, total_steps: int, steps_per_epoch: int) -> int:
        """Warm-up length in optimizer steps."""
        if self.warmup_steps is not None:
            return self.warmup_steps
        if self.warmup_ratio is not None:
            return round(self.warmup_ratio * total_steps)
        if self.warmup_epochs is not None:
            return round(self.warmup_epochs * steps_per_epoch)
        return 0

    def factor(self, step: int, *, warmup: int, total_steps: int) -> float:
        """Multiple of `lr` for the optimizer step with this index (0-based).

        The first warm-up step already moves (1 / warmup), and the last step of a decay still does:
        the schedule reaches `final_factor` one step after the run's end.
        """
        if step < warmup:
            return (step + 1) / warmup
        after, span = step - warmup, max(1, total_steps - warmup)
        if self.shape == "wsd":
            span = max(1, round(self.decay_ratio * total_steps))
            after = max(0, step - (total_steps - span))
        progress = min(1.0, after / span)
        if self.shape == "constant":
            return 1.0
        fall = (1 - math.cos(math.pi * progress)) / 2 if self.shape == "cosine" else progress
        return 1.0 - (1.0 - self.final_factor) * fall
