"""Whole answers as objectives judge them: the log-probabilities of a batch by document and kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from graftlab.objectives.divergence import divergence
from graftlab.objectives.policy import in_chunks
from graftlab.types import PLAIN

if TYPE_CHECKING:
    from torch import Tensor

    from graftlab.types import Batch


@dataclass(frozen=True, slots=True)
class Completions:
    """One answer of each of D documents."""

    logps: Tensor
    """Log-probability of the whole answer in nats, (D,)."""
    counts: Tensor
    """Its labels, or their weights, (D,)."""
    reference: Tensor
    """Its log-probability under the reference, (D,); zeros without one."""

    @property
    def means(self) -> Tensor:
        """Log-probability of a label, on average over the answer."""
        return self.logps / self.counts

    @property
    def ratios(self) -> Tensor:
        """log(policy / reference) of the whole answer."""
        return self.logps - self.reference


Places = dict[int, dict[int, list[int]]]
"""Document -> kind -> its segments."""


def places(batch: Batch) -> Places:
    """Where the answers of each document lie, in order; of plain documents there are none."""
    found: Places = {}
    if batch.owners is None or batch.kinds is None:  # a process without rows
        return found
    for place, (owner, kind) in enumerate(
        zip(batch.owners.tolist(), batch.kinds.tolist(), strict=True)
    ):
        if kind != PLAIN:
            found.setdefault(owner, {}).setdefault(kind, []).append(place)
    return found


class Scored:
    """The segments of a batch under a policy, gathered to answers as they are asked for."""

    def __init__(self, policy: Any, batch: Batch, *, with_reference: bool) -> None:
        self.hidden, labels = policy.labelled(batch)  # (n, D), (n,)
        self.logps, self.counts = policy.segment_logps(batch, (self.hidden, labels))
        self.reference = torch.zeros_like(self.logps)
        if with_reference and batch.kinds is not None:
            assert batch.reference is not None, "the reference pass comes before training"
            self.reference = batch.reference

    def completions(self, segments: Sequence[Sequence[int]]) -> Completions:
        """The answers that lie in these segments, one list for each document.

        Of none they are empty and still have their graph.
        """
        columns = self.logps, self.counts, self.reference
        return Completions(*(_sums(column, segments) for column in columns))


def _sums(column: Tensor, segments: Sequence[Sequence[int]]) -> Tensor:
    if not segments:
        return column[:0]
    order = torch.tensor([place for own in segments for place in own], device=column.device)
    parts = torch.split(column.index_select(0, order), [len(own) for own in segments])
    return torch.stack([part.sum() for part in parts])


def kl_from_base(policy: Any, batch: Batch, hidden: Tensor) -> Tensor:
    """KL(policy || base) in nats at each label, (n,), of the policy's hidden states (n, D)."""
    width = 2 * policy.base.vocab_size
    return in_chunks(partial(_kl, policy), hidden, policy.reference(batch), width=width)


def _kl(policy: Any, hidden: Tensor, reference: Tensor) -> Tensor:
    return divergence(policy.logits(hidden), policy.reference_logits(reference), kind="inverse")


def preferred(chosen: Tensor, rejected: Tensor | float) -> Tensor:
    """1 where the first reward is higher, 0 where the other one is; a tie is a half."""
    return ((chosen > rejected).float() + (chosen >= rejected).float()) / 2
