"""`objective=orpo`: cross-entropy on the chosen answer, and its odds against the rejected one's."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from graftlab.errors import require_range
from graftlab.objectives.preference import Judged, Preference, told
from graftlab.registry import choice

if TYPE_CHECKING:
    from torch import Tensor

    from graftlab.objectives.completions import Completions


@choice("orpo")
@dataclass(kw_only=True, slots=True)
class ORPO(Preference):
    """Odds ratio preference optimisation without a reference, arXiv 2403.07691:

        nll(chosen) - beta log s(log odds(chosen) - log odds(rejected)),  odds = p / (1 - p)

    with p the geometric mean of an answer's token probabilities and nll its cross-entropy per
    token, over the answer's labels alone. A reward is beta log p.
    """

    JOINT: ClassVar[tuple[str, ...]] = ("beta",)

    beta: float = 0.1
    """Weight of the odds ratio (lambda in the paper)."""

    def __post_init__(self) -> None:
        require_range("objective.beta", self.beta, above=0)

    def measure(self) -> str:
        return told(self, "ORPO loss per pair", "beta")

    def judge(self, chosen: Completions, rejected: Completions) -> Judged:
        import torch.nn.functional as F

        better, worse = chosen.means, rejected.means
        log_odds = (better - worse) - (_log1mexp(better) - _log1mexp(worse))
        losses = -better - self.beta * F.logsigmoid(log_odds)
        return Judged(losses, self.beta * better.detach(), self.beta * worse.detach())


def _log1mexp(values: Tensor) -> Tensor:
    """log(1 - exp(values)) of values below 0, exact near 0 and far from it.

    Values that rounding has made 0 count as -1e-7.
    """
    import torch

    values = values.clamp(max=-1e-7)
    near = values > -math.log(2)
    # Each branch sees only values that it can take, or its gradient would be NaN elsewhere.
    close = torch.log(-torch.expm1(torch.where(near, values, -1.0)))
    far = torch.log1p(-torch.exp(torch.where(near, -1.0, values)))
    return torch.where(near, close, far)
