"""`callbacks.likelihood`: a warning, or an end, where preferences make chosen answers unlikely."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

from graftlab.errors import require_range
from graftlab.registry import choice
from graftlab.training.callbacks.spec import CallbackSpec, State, Step

REMEDY = (
    "Give objective.sft_weight=0.1 (kto: a larger objective.desirable_weight), a larger "
    "objective.beta, or a lower lr."
)


@choice("likelihood")
@dataclass(kw_only=True, slots=True)
class LikelihoodAlarm(CallbackSpec):
    """Warn, or stop, when the chosen answers' own likelihood has fallen for long.

    A loss of preferences also falls where both answers become unlikely and the rejected one does so
    faster (arXiv 2402.13228): replies degenerate then. Steps are averaged in blocks; a block warns
    that lies below the first one by more than chance and below the one before it.
    """

    steps: int = 25
    """Optimizer steps that are averaged: the first warning can come after twice as many."""
    errors: float = 3.0
    """Standard errors that do not count as chance."""
    stop: bool = False
    """Stop the run instead of only warning."""

    def __post_init__(self) -> None:
        require_range("callbacks.likelihood.steps", self.steps, least=2)
        require_range("callbacks.likelihood.errors", self.errors, least=0)

    def after_step(self, step: Step, state: State) -> str | None:
        reward = step.metrics.get("rewards_chosen")
        if reward is None or state.get("told"):
            return None
        block = [*state.get("block", []), reward]
        if len(block) < self.steps:
            state["block"] = block
            return None
        mean, error = _mean(block)
        first = state.setdefault("first", [mean, error])
        falls = mean < state.get("before", mean)
        state["block"], state["before"] = [], mean
        if not falls or mean >= first[0] - self.errors * sqrt(error**2 + first[1] ** 2):
            return None
        state["told"] = True
        complaint = (
            f"step {step.number}: the chosen answers become less likely: rewards_chosen fell from "
            f"{first[0]:.3g} to {mean:.3g} on average"
        )
        step.warn(f"! {complaint}. {REMEDY}")
        return complaint if self.stop else None


def _mean(values: list[float]) -> tuple[float, float]:
    """The mean and its standard error."""
    count = len(values)
    mean = sum(values) / count
    variance = sum((value - mean) ** 2 for value in values) / (count - 1)
    return mean, sqrt(variance / count)
