"""`objective=dpo`: the chosen answer likelier than the rejected one, against a reference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from graftlab.errors import ConfigError, require_choice, require_range
from graftlab.objectives.preference import Judged, Preference, require_smoothing, smoothed, told
from graftlab.registry import choice

if TYPE_CHECKING:
    from torch import Tensor

    from graftlab.objectives.completions import Completions

LOSSES = ("sigmoid", "ipo", "hinge", "robust")


@choice("dpo")
@dataclass(kw_only=True, slots=True)
class DPO(Preference):
    """Direct preference optimisation; the reference is the base, or the adapter of `lora.from`.

    With h = log(p/ref) of the chosen answer less that of the rejected one, and e label_smoothing:

        sigmoid   -(1 - e) log s(beta h) - e log s(-beta h)                  arXiv 2305.18290
        robust    (-(1 - e) log s(beta h) + e log s(-beta h)) / (1 - 2 e)    arXiv 2403.00409
        hinge     max(0, 1 - beta h)                                         arXiv 2305.10425
        ipo       (h' - 1 / (2 beta))^2, h' of ratios per token              arXiv 2310.12036

    s is the logistic function. sigmoid with e > 0 is the conservative loss of the same authors. A
    reward is beta log(p/ref). `sft_weight` adds the chosen answer's cross-entropy per token: RPO,
    arXiv 2404.19733.
    """

    needs_reference: ClassVar[bool] = True
    JOINT: ClassVar[tuple[str, ...]] = ("loss", "beta", "label_smoothing", "sft_weight")

    loss: str = "sigmoid"
    """sigmoid, ipo, hinge or robust."""
    beta: float = 0.1
    """How strongly the policy is kept to the reference; larger stays closer. ipo: its tau."""
    label_smoothing: float = 0.0
    """sigmoid and robust only: the share of pairs taken to be the wrong way round."""
    sft_weight: float = 0.0
    """Weight of the chosen answer's cross-entropy, against falling likelihoods; 0 for none."""

    def __post_init__(self) -> None:
        require_choice("objective.loss", self.loss, LOSSES)
        require_range("objective.beta", self.beta, above=0)
        require_range("objective.sft_weight", self.sft_weight, least=0)
        require_smoothing(self.label_smoothing)
        if self.label_smoothing and self.loss in ("ipo", "hinge"):
            raise ConfigError(
                f"objective.label_smoothing is for loss=sigmoid and robust, not {self.loss}."
            )

    def measure(self) -> str:
        keys = ("beta",) if self.loss == "ipo" else ()
        what = f"DPO {self.loss} loss per pair"
        return told(self, what, *keys, "label_smoothing", "sft_weight")

    def judge(self, chosen: Completions, rejected: Completions) -> Judged:
        rewards = self.beta * chosen.ratios, self.beta * rejected.ratios
        losses = self._losses(chosen, rejected, margins=rewards[0] - rewards[1])
        if self.sft_weight:
            losses = losses - self.sft_weight * chosen.means
        return Judged(losses, *(reward.detach() for reward in rewards))

    def _losses(self, chosen: Completions, rejected: Completions, *, margins: Tensor) -> Tensor:
        import torch
        import torch.nn.functional as F

        if self.loss == "sigmoid":
            return smoothed(margins, self.label_smoothing)
        if self.loss == "hinge":
            return torch.relu(1 - margins)
        if self.loss == "robust":
            e = self.label_smoothing
            kept, flipped = F.logsigmoid(margins), F.logsigmoid(-margins)
            return (e * flipped - (1 - e) * kept) / (1 - 2 * e)
        assert self.loss == "ipo", self.loss
        apart = chosen.ratios / chosen.counts - rejected.ratios / rejected.counts
        return (apart - 1 / (2 * self.beta)).square()
