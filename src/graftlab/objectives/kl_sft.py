"""`objective=kl-sft`: cross-entropy with a KL term that keeps the tuned model near its base.

    loss = CE + kl_lambda * kl_tau**2 * KL(p || q)

at each labelled position, with p the base's next-token distribution and q the tuned model's, both
at temperature kl_tau; kl_tau**2 keeps the gradient's size, as in distillation (arXiv 1503.02531).
The base is the adapter switched off, in a pass of its own without gradients.

With a budget, kl_lambda is the multiplier of the constraint that the held-out KL stays within it:
each validation multiplies it, by 1/2 at least and by 4 at most, by

    (KL + max(KL - KL of the validation before, 0)) / (0.9 * kl_budget)

The rise since the last validation is added because a multiplier that waits until the budget is
spent acts too late; a tenth of the budget is room for what is never exact. Only adapters that were
within the budget can be the run's best. Adaptive penalties: PPO (arXiv 1707.06347, section 4).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from graftlab.errors import ConfigError, require_choice, require_range
from graftlab.objectives.base import Objective
from graftlab.registry import choice
from graftlab.types import ANCHOR, IGNORE

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from graftlab.types import Batch

DIRECTIONS = ("forward", "inverse")
STRENGTHS = (0.25, 0.5, 0.75, 1.0, 1.25)
SLOWEST, FASTEST = 0.5, 4.0
"""Least and most that a validation multiplies kl_lambda by."""
AIM = 0.9
"""Share of the budget that is aimed at."""
SMALLEST, LARGEST = 1e-4, 1e3
"""Bounds of an adjusted kl_lambda."""


@choice("kl-sft")
@dataclass(kw_only=True, slots=True)
class KLSFT(Objective):
    """Cross-entropy plus the KL divergence from the base, summed over labelled positions."""

    METRICS: ClassVar[Mapping[str, str]] = {
        "kl": "nats per token from the base, or the teacher",
        "kl_lambda": "weight of the KL until then",
    }
    JOINT: ClassVar[tuple[str, ...]] = ("kl_lambda", "kl_tau", "kl_direction", "kl_budget")

    kl_lambda: float = 0.05
    """Weight of the KL term; 0 leaves it out. With kl_budget: what it begins with."""
    kl_tau: float = 1.0
    """Temperature of both distributions; above 1 unlikely words count more."""
    kl_direction: str = "forward"
    """forward: KL(base || tuned); inverse: KL(tuned || base)."""
    kl_budget: float | None = None
    """Nats per token that the KL on held-out rows keeps to: kl_lambda adjusts itself."""
    anchors: Any = None
    """Files of other conversations: the KL is taken on their answers, not on the trained ones."""
    anchors_share: float = 0.2
    """Share of all labels that are the anchors'."""
    teacher: str | None = None
    """Keep to this run, adapter or model folder instead of the base; lora=none needs one."""
    key: str | None = None
    """Filled in: the fingerprint of the teacher, so that another teacher makes another run."""

    def __post_init__(self) -> None:
        require_range("objective.kl_lambda", self.kl_lambda, least=0)
        require_range("objective.kl_tau", self.kl_tau, above=0)
        require_range("objective.kl_budget", self.kl_budget, above=0)
        require_range("objective.anchors_share", self.anchors_share, least=0.01, most=0.9)
        require_choice("objective.kl_direction", self.kl_direction, DIRECTIONS)
        if self.kl_budget is not None and self.kl_lambda == 0:
            raise ConfigError(
                "objective.kl_budget multiplies objective.kl_lambda, which is 0: give it a value "
                "to begin with, such as 0.05."
            )

    def teacher_path(self) -> str | None:
        return self.teacher

    def asks_base(self, *, validating: bool = False) -> bool:
        return self.teacher is None

    def key_needing_validation(self) -> str | None:
        return None if self.kl_budget is None else "kl_budget"

    def base_batch(self, batch: Batch) -> Batch:
        from graftlab.packing.parts import part_of, segments_of_kind

        return batch if self.anchors is None else part_of(batch, segments_of_kind(batch, ANCHOR))

    def anchor_data(self) -> tuple[Any, float] | None:
        return None if self.anchors is None else (self.anchors, self.anchors_share)

    def terms(self, policy: Any, batch: Batch) -> dict[str, torch.Tensor]:
        """The loss; `nll` and `kl` (at kl_tau, without its square) are its parts."""
        strength = policy.state.get("kl_lambda", self.kl_lambda) * self.kl_tau**2
        if self.anchors is not None:
            nll, kl = self._apart(policy, batch)
        elif strength == 0:
            return {"loss": policy.label_nll(batch)}
        else:
            nll, kl = (part.sum() for part in self._judged(policy, batch, tau=self.kl_tau))
        return {"loss": nll + strength * kl, "nll": nll.detach(), "kl": kl.detach()}

    def validation(self, policy: Any, batch: Batch) -> dict[str, torch.Tensor]:
        """Cross-entropy by label, by which runs are judged; the sum of the KL at temperature 1."""
        nll, kl = self._judged(policy, batch, tau=1.0)
        return {"loss": nll, "kl": kl.sum()}

    def after_validation(self, numbers: dict[str, float], state: dict[str, float]) -> bool:
        """With a budget: the next kl_lambda into `state`, the one until now into `numbers`."""
        if self.kl_budget is None:
            return True
        until_now, kl = state.get("kl_lambda", self.kl_lambda), numbers["kl"]
        expected = kl + max(kl - state.get("kl", 0.0), 0.0)
        factor = min(max(expected / (AIM * self.kl_budget), SLOWEST), FASTEST)
        numbers["kl_lambda"] = until_now
        state["kl_lambda"] = min(max(until_now * factor, SMALLEST), LARGEST)
        state["kl"] = kl
        return kl <= self.kl_budget

    def strengths(self) -> tuple[float, ...]:
        return STRENGTHS

    def _judged(self, policy: Any, batch: Batch, *, tau: float) -> Tensor:
        """Negative log-likelihood and KL of each label in nats, (2, n), in chunks of labels."""
        import torch

        from graftlab.objectives.policy import in_chunks, weighted

        reference = policy.reference(batch)  # first: its activations are gone before the others
        hidden, labels = policy.labelled(batch)
        judge = partial(_judge, policy, kind=self.kl_direction, tau=tau)
        # By the width of one model: more chunks than cross-entropy makes would be made twice.
        width = policy.base.vocab_size
        judged = in_chunks(judge, hidden, reference, labels, width=width)
        # Contiguous: summed in the order that plain cross-entropy is summed in.
        return torch.stack([weighted(part, batch) for part in judged.T.contiguous()])

    def _apart(self, policy: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        """Sums of the trained labels' nll and of the anchors' KL, each over its share of labels.

        Divided by the labels of a step, they are the means over each, on average over an epoch.
        """
        import torch

        from graftlab.objectives.policy import in_chunks, weighted
        from graftlab.packing.parts import positions_of, segments_of_kind

        reference = policy.reference(self.base_batch(batch))
        hidden, labels = policy.labelled(batch)
        apart = positions_of(batch, segments_of_kind(batch, ANCHOR))[batch.labels[0] != IGNORE]
        anchors, trained = apart.nonzero()[:, 0], (~apart).nonzero()[:, 0]
        width = policy.base.vocab_size
        judge = partial(_kl_of, policy, kind=self.kl_direction, tau=self.kl_tau)
        kl = in_chunks(judge, hidden[anchors], reference, width=width)
        nll = in_chunks(partial(_nll_of, policy), hidden[trained], labels[trained], width=width)
        weights = weighted(torch.ones_like(labels, dtype=nll.dtype), batch)
        nll, kl = (nll * weights[trained]).sum(), (kl * weights[anchors]).sum()
        return nll / (1 - self.anchors_share), kl / self.anchors_share


def _judge(
    policy: Any, hidden: Tensor, reference: Tensor, labels: Tensor, *, kind: str, tau: float
) -> Tensor:
    """Of each row nll and KL, (n, 2)."""
    import torch
    import torch.nn.functional as F

    from graftlab.objectives.divergence import nll_and_kl

    theirs, ours = policy.reference_logits(reference), policy.logits(hidden)
    if (kind, tau) == ("forward", 1.0) and theirs.shape == ours.shape:
        return nll_and_kl(ours, theirs, labels)
    nll = F.cross_entropy(ours, labels, reduction="none")
    return torch.stack([nll, _kl(ours, theirs, kind=kind, tau=tau)], dim=1)


def _kl_of(policy: Any, hidden: Tensor, reference: Tensor, *, kind: str, tau: float) -> Tensor:
    theirs, ours = policy.reference_logits(reference), policy.logits(hidden)
    return _kl(ours, theirs, kind=kind, tau=tau)


def _nll_of(policy: Any, hidden: Tensor, labels: Tensor) -> Tensor:
    import torch.nn.functional as F

    return F.cross_entropy(policy.logits(hidden), labels, reduction="none")


def _kl(ours: Tensor, theirs: Tensor, *, kind: str, tau: float) -> Tensor:
    """KL (n,) of logits (n, V) over the ids that both have: beyond lies an embedding's padding."""
    from graftlab.objectives.divergence import divergence

    shared = min(ours.shape[-1], theirs.shape[-1])
    return divergence(ours[:, :shared], theirs[:, :shared], kind=kind, temperature=tau)
