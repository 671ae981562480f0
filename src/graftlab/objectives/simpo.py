"""`objective=simpo`: likelihoods per token as rewards, a margin apart, without a reference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from graftlab.errors import require_range
from graftlab.objectives.preference import Judged, Preference, smoothed, told
from graftlab.registry import choice

if TYPE_CHECKING:
    from graftlab.objectives.completions import Completions


@choice("simpo")
@dataclass(kw_only=True, slots=True)
class SimPO(Preference):
    """Simple preference optimisation, arXiv 2405.14734:

        -log s(beta (mean log p(chosen) - mean log p(rejected)) - gamma)

    with means over an answer's tokens. A reward is beta times such a mean.
    """

    JOINT: ClassVar[tuple[str, ...]] = ("beta", "gamma", "sft_weight")

    beta: float = 2.0
    """Scale of the rewards."""
    gamma: float = 1.0
    """Margin by which the chosen answer's reward is to be higher."""
    sft_weight: float = 0.0
    """Weight of the chosen answer's cross-entropy per token; 0 for none."""

    def __post_init__(self) -> None:
        require_range("objective.beta", self.beta, above=0)
        require_range("objective.gamma", self.gamma, least=0)
        require_range("objective.sft_weight", self.sft_weight, least=0)

    def measure(self) -> str:
        return told(self, "SimPO loss per pair", "gamma", "sft_weight")

    def judge(self, chosen: Completions, rejected: Completions) -> Judged:
        rewards = self.beta * chosen.means, self.beta * rejected.means
        losses = smoothed(rewards[0] - rewards[1] - self.gamma)
        if self.sft_weight:
            losses = losses - self.sft_weight * chosen.means
        return Judged(losses, *(reward.detach() for reward in rewards))
