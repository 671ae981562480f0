"""What objectives over pairs of answers share: both answers' log-probabilities, and what is logged.

document    prompt | chosen | rejected        one pair, in one pass
loss        one number for each pair; a step's is the mean over its pairs
reward      how likely an answer has become, in the objective's own measure
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar

from graftlab.errors import ConfigError, require_range
from graftlab.objectives.base import Objective
from graftlab.statistics import wilson_interval
from graftlab.types import CHOSEN, REJECTED

if TYPE_CHECKING:
    from torch import Tensor

    from graftlab.objectives.completions import Completions, Scored
    from graftlab.types import Batch


@dataclass(frozen=True, slots=True)
class Judged:
    """What an objective makes of D pairs: losses with a graph, and both answers' rewards; (D,)."""

    losses: Tensor
    chosen: Tensor
    rejected: Tensor


@dataclass(kw_only=True, slots=True)
class Preference(Objective):
    """A loss of pairs: `judge` says which; asking, logging and validating are the same for all."""

    unit: ClassVar[str] = "document"
    takes: ClassVar[str] = "pairs"
    METRICS: ClassVar[Mapping[str, str]] = {
        "accuracy": "of the pairs have the higher reward for the chosen answer",
        "margin": "reward of the chosen answers above that of the rejected",
        "nll": "nats per token of the chosen answers",
        "kl": "nats per token from the base",
    }

    @abstractmethod
    def judge(self, chosen: Completions, rejected: Completions) -> Judged:
        """Losses and rewards of D pairs."""

    def asks_base(self, *, validating: bool = False) -> bool:
        return validating

    def terms(self, policy: Any, batch: Batch) -> dict[str, Tensor]:
        """Sums over the pairs of `batch`; without any, zeros of which the loss has a graph."""
        from graftlab.objectives.completions import Scored, preferred

        scored = Scored(policy, batch, with_reference=self.needs_reference)
        chosen, rejected, judged = self._judged(scored, batch)
        found = {
            "loss": judged.losses,
            "rewards_chosen": judged.chosen,
            "rewards_rejected": judged.rejected,
            "reward_margin": judged.chosen - judged.rejected,
            "reward_accuracy": preferred(judged.chosen, judged.rejected),
            "logps_chosen": chosen.logps,
            "logps_rejected": rejected.logps,
        }
        return {name: values.sum() for name, values in found.items()}

    def validation(self, policy: Any, batch: Batch) -> dict[str, Tensor]:
        """The loss of each pair, and sums of what is reported beside it."""
        from graftlab.objectives.completions import Scored, kl_from_base, preferred

        scored = Scored(policy, batch, with_reference=self.needs_reference)
        chosen, _, judged = self._judged(scored, batch)
        apart = kl_from_base(policy, batch, scored.hidden)
        return {
            "loss": judged.losses,
            "accuracy": preferred(judged.chosen, judged.rejected).sum(),
            "margin": (judged.chosen - judged.rejected).sum(),
            "nll": -chosen.logps.sum(),
            "nll_labels": chosen.counts.sum(),
            "kl": apart.sum(),
            "kl_labels": apart.new_tensor(len(apart)),
        }

    def metrics(self, sums: Mapping[str, float], units: float) -> dict[str, float]:
        """Means over pairs, or over labels for `nll` and `kl`."""
        return {
            "loss": sums["loss"] / units,
            **accuracy(sums["accuracy"], units),
            "margin": sums["margin"] / units,
            "nll": sums["nll"] / sums["nll_labels"],
            "kl": sums["kl"] / sums["kl_labels"],
        }

    def _judged(self, scored: Scored, batch: Batch) -> tuple[Completions, Completions, Judged]:
        from graftlab.objectives.completions import places

        pairs = [own for own in places(batch).values() if CHOSEN in own and REJECTED in own]
        chosen = scored.completions([own[CHOSEN] for own in pairs])
        rejected = scored.completions([own[REJECTED] for own in pairs])
        return chosen, rejected, self.judge(chosen, rejected)


def accuracy(right: float, total: float) -> dict[str, float]:
    """A share with its 95 % interval by Wilson's score."""
    low, high = wilson_interval(right, total)
    return {"accuracy": right / total, "accuracy_low": low, "accuracy_high": high}


def smoothed(margins: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """-log s(margins), where a share of the pairs is taken to be the wrong way round."""
    import torch.nn.functional as F

    if not label_smoothing:
        return -F.logsigmoid(margins)
    kept, flipped = F.logsigmoid(margins), F.logsigmoid(-margins)
    return -(1 - label_smoothing) * kept - label_smoothing * flipped


def require_smoothing(share: float) -> None:
    """Raise ConfigError unless fewer than half of the pairs are the wrong way round."""
    require_range("objective.label_smoothing", share, least=0)
    if share >= 0.5:
        raise ConfigError(
            f"objective.label_smoothing={share:g} must be below 0.5: from there on the rejected "
            "answers would be the better ones."
        )


def told(objective: Objective, what: str, *keys: str) -> str:
    """A measure in words, with those settings that change its scale where they are no defaults."""
    defaults = {field.name: field.default for field in fields(objective)}
    values = {key: getattr(objective, key) for key in keys}
    other = [f"{key}={value:g}" for key, value in values.items() if value != defaults[key]]
    return ", ".join([what, *other])
