"""`objective=kto`: answers that are desirable or not, each by itself, against a reference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from graftlab.errors import require_range
from graftlab.objectives.base import Objective
from graftlab.objectives.preference import accuracy, told
from graftlab.registry import choice
from graftlab.types import CHOSEN, REJECTED

if TYPE_CHECKING:
    from torch import Tensor

    from graftlab.objectives.completions import Completions
    from graftlab.types import Batch

SIDES = {"chosen": CHOSEN, "rejected": REJECTED}


@choice("kto")
@dataclass(kw_only=True, slots=True)
class KTO(Objective):
    """Kahneman-Tversky optimisation, arXiv 2402.01306, with r = log(p/ref) of a whole answer:

        desirable      desirable_weight (1 - s(beta (r - z)))
        undesirable    undesirable_weight (1 - s(beta (z - r)))

    s is the logistic function. z estimates the KL from the reference as the paper does: the mean of
    r over the prompts of the optimizer step, each followed by another row's answer, at least 0 and
    without gradient. It is taken over the whole step, whatever its micro-batches and processes. A
    reward is beta r.
    """

    unit: ClassVar[str] = "document"
    takes: ClassVar[str] = "labels"
    needs_reference: ClassVar[bool] = True
    needs_mismatched: ClassVar[bool] = True
    METRICS: ClassVar[Mapping[str, str]] = {
        "accuracy": "of the answers are on their own side of the estimated KL",
        "margin": "mean reward of desirable answers above that of the others",
        "nll": "nats per token of the desirable answers",
        "kl": "nats per token from the base",
    }
    JOINT: ClassVar[tuple[str, ...]] = ("beta", "desirable_weight", "undesirable_weight")

    beta: float = 0.1
    """How strongly the policy is kept to the reference; larger stays closer."""
    desirable_weight: float = 1.0
    """Weight of desirable answers; times their number it should near that of the others."""
    undesirable_weight: float = 1.0
    """Weight of undesirable answers."""

    def __post_init__(self) -> None:
        require_range("objective.beta", self.beta, above=0)
        require_range("objective.desirable_weight", self.desirable_weight, least=0)
        require_range("objective.undesirable_weight", self.undesirable_weight, least=0)

    def measure(self) -> str:
        return told(self, "KTO loss per answer", "desirable_weight", "undesirable_weight")

    def asks_base(self, *, validating: bool = False) -> bool:
        return validating

    def estimate(self, policy: Any, batch: Batch) -> Tensor:
        import torch

        sides, _ = self._scored(policy, batch)
        ratios = torch.cat([side.ratios for side in sides.values()])
        return torch.stack([ratios.sum(), ratios.new_tensor(len(ratios))])

    def terms(self, policy: Any, batch: Batch) -> dict[str, Tensor]:
        """Sums over the answers of `batch`; without any, zeros of which the loss has a graph."""
        sides, _ = self._scored(policy, batch)
        losses, right = self._judged(policy, sides)
        found = {"loss": losses.sum(), "reward_accuracy": right.sum()}
        found["kl"] = len(losses) * losses.new_tensor(floor(policy))
        for name, side in sides.items():
            found[f"rewards_{name}"] = self.beta * side.ratios.sum()
            found[f"logps_{name}"] = side.logps.sum()
            found[f"{name}_answers"] = losses.new_tensor(len(side.logps))
        return found

    def logged(self, sums: Mapping[str, float], units: float) -> dict[str, float]:
        """Rewards and log-probabilities are means over the answers of their own side."""
        found = {name: sums[name] / units for name in ("loss", "reward_accuracy", "kl")}
        for name in SIDES:
            if count := sums[f"{name}_answers"]:
                found[f"rewards_{name}"] = sums[f"rewards_{name}"] / count
                found[f"logps_{name}"] = sums[f"logps_{name}"] / count
        if all(f"rewards_{name}" in found for name in SIDES):
            found["reward_margin"] = found["rewards_chosen"] - found["rewards_rejected"]
        return found

    def validation(self, policy: Any, batch: Batch) -> dict[str, Tensor]:
        """The loss of each answer, and sums of what is reported beside it."""
        from graftlab.objectives.completions import kl_from_base

        sides, hidden = self._scored(policy, batch)
        losses, right = self._judged(policy, sides)
        apart = kl_from_base(policy, batch, hidden)
        found = {
            "loss": losses,
            "accuracy": right.sum(),
            "nll": -sides["chosen"].logps.sum(),
            "nll_labels": sides["chosen"].counts.sum(),
            "kl": apart.sum(),
            "kl_labels": apart.new_tensor(len(apart)),
        }
        for name, side in sides.items():
            found[f"rewards_{name}"] = self.beta * side.ratios.sum()
            found[f"{name}_answers"] = losses.new_tensor(len(side.logps))
        return found

    def metrics(self, sums: Mapping[str, float], units: float) -> dict[str, float]:
        """`margin` is that of the mean rewards of both sides; none where a side has no answer."""
        counts = {name: sums[f"{name}_answers"] for name in SIDES}
        rewards = {name: sums[f"rewards_{name}"] / (counts[name] or 1) for name in SIDES}
        both = all(counts.values())
        return {
            "loss": sums["loss"] / units,
            **accuracy(sums["accuracy"], units),
            **({"margin": rewards["chosen"] - rewards["rejected"]} if both else {}),
            **({"nll": sums["nll"] / sums["nll_labels"]} if counts["chosen"] else {}),
            "kl": sums["kl"] / sums["kl_labels"],
        }

    def _scored(self, policy: Any, batch: Batch) -> tuple[dict[str, Completions], Tensor]:
        """The answers of both sides, and hidden states (n, D) at labels."""
        from graftlab.objectives.completions import Scored, places

        found = places(batch).values()
        scored = Scored(policy, batch, with_reference=True)
        sides = {
            name: scored.completions([own[kind] for own in found if kind in own])
            for name, kind in SIDES.items()
        }
        return sides, scored.hidden

    def _judged(self, policy: Any, sides: Mapping[str, Completions]) -> tuple[Tensor, Tensor]:
        """Losses and whether the reward is on its side of z, of desirable answers and others."""
        import torch

        from graftlab.objectives.completions import preferred

        z = floor(policy)
        chosen, rejected = sides["chosen"].ratios, sides["rejected"].ratios
        better = self.desirable_weight * torch.sigmoid(self.beta * (z - chosen))
        worse = self.undesirable_weight * torch.sigmoid(self.beta * (rejected - z))
        right = preferred(chosen, z), preferred(-rejected, -z)
        return torch.cat([better, worse]), torch.cat(right)


def floor(policy: Any) -> float:
    """The estimate of the KL, at least 0."""
    assert policy.estimate is not None, "the step's mismatched answers come first"
    return max(0.0, float(policy.estimate))
