"""`objective=cpo`: DPO's loss with a uniform reference, and cross-entropy on the chosen answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from graftlab.errors import require_range
from graftlab.objectives.preference import Judged, Preference, require_smoothing, smoothed, told
from graftlab.registry import choice

if TYPE_CHECKING:
    from graftlab.objectives.completions import Completions


@choice("cpo")
@dataclass(kw_only=True, slots=True)
class CPO(Preference):
    """Contrastive preference optimisation without a reference, arXiv 2401.08417:

        -(1 - e) log s(beta h) - e log s(-beta h) + sft_weight nll(chosen)

    with h = log p(chosen) - log p(rejected), e label_smoothing and nll per token. A reward is
    beta log p.
    """

    JOINT: ClassVar[tuple[str, ...]] = ("beta", "label_smoothing", "sft_weight")

    beta: float = 0.1
    """Scale of the rewards."""
    label_smoothing: float = 0.0
    """The share of pairs taken to be the wrong way round."""
    sft_weight: float = 1.0
    """Weight of the chosen answer's cross-entropy per token."""

    def __post_init__(self) -> None:
        require_range("objective.beta", self.beta, above=0)
        require_smoothing(self.label_smoothing)
        require_range("objective.sft_weight", self.sft_weight, least=0)

    def measure(self) -> str:
        return told(self, "CPO loss per pair", "label_smoothing", "sft_weight")

    def judge(self, chosen: Completions, rejected: Completions) -> Judged:
        rewards = self.beta * chosen.logps, self.beta * rejected.logps
        losses = smoothed(rewards[0] - rewards[1], self.label_smoothing)
        if self.sft_weight:
            losses = losses - self.sft_weight * chosen.means
        return Judged(losses, *(reward.detach() for reward in rewards))
