"""The policy an objective asks: base and adapter, scored only where a label is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from graftlab.types import IGNORE

if TYPE_CHECKING:
    from graftlab.adapters.base import Adapter
    from graftlab.models.base import Base
    from graftlab.types import Batch

CHUNK_ELEMENTS = 1 << 24
"""Logits held at once; a chunk has as many rows as fit (110 for a vocabulary of 152k)."""


class Policy:
    """Base with adapter, as objectives see it; logits of shape (N, V) never exist.

    `teacher` is another such policy, frozen, for objectives that ask one. `state` is what the
    objective adjusts while it trains (`Objective.after_validation`); checkpoints keep it.
    `estimate` is what one that needs mismatched answers found of them, for the step or validation
    at hand.
    """

    def __init__(self, base: Base, adapter: Adapter | None, teacher: Policy | None = None) -> None:
        self.base = base
        self.adapter = adapter
        self.teacher = teacher
        self.state: dict[str, float] = {}
        self.estimate: float | None = None

    def hidden(self, batch: Batch) -> Tensor:
        """Final hidden states (1, N, D) of `batch`."""
        return self.base.hidden(batch)

    def labelled(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Final hidden states (n, D) of the labelled positions and the labels (n,), in order."""
        labels = batch.labels[0]
        where = (labels != IGNORE).nonzero()[:, 0]
        return self.hidden(batch)[0].index_select(0, where), labels[where]

    def logits(self, hidden: Tensor) -> Tensor:
        """Next-token logits (n, V) in fp32 of hidden states (n, D)."""
        return self.base.logits(hidden).float()

    def reference(self, batch: Batch) -> Tensor:
        """Hidden states (n, D) of the reference at the labelled positions, without gradients.

        The reference is the teacher where there is one, else the base with the adapter switched
        off, which draws no dropout: no second copy of the base is needed.
        """
        with self._as_reference() as policy:
            return policy.labelled(batch)[0]

    def reference_logits(self, hidden: Tensor) -> Tensor:
        """The reference's next-token logits (n, V) in fp32 of its hidden states (n, D)."""
        with self._as_reference() as policy:
            return policy.logits(hidden)

    @contextmanager
    def _as_reference(self) -> Iterator[Policy]:
        off = nullcontext() if self.teacher or self.adapter is None else self.adapter.disabled()
        with torch.no_grad(), off:
            yield self.teacher or self

    def label_nll(self, batch: Batch) -> Tensor:
        """Negative log-likelihood in nats, summed over labels by their weights; an fp32 scalar.

        Without a label it is a zero that still has every adapter parameter in its graph, so that a
        process without rows takes part in gradient exchange.
        """
        return self.weighted_nll(batch).sum()

    def weighted_nll(self, batch: Batch) -> Tensor:
        """`nll`, each label's by its weight, (n,)."""
        return weighted(self.nll(batch), batch)

    def segment_logps(
        self, batch: Batch, labelled: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Log-probability of the labels of each segment, and how many those are: two (segments,).

        Where labels have weights, both are sums of those. `labelled`: as `nll` takes it.
        """
        nll = self.nll(batch, labelled)
        counts = weighted(torch.ones_like(nll), batch)
        return per_segment(-weighted(nll, batch), batch), per_segment(counts, batch)

    def nll(self, batch: Batch, labelled: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Negative log-likelihood of each label in nats, (n,) fp32, in order of position.

        `labelled` is what the method of that name gives for `batch`, where it was asked before.
        """
        hidden, labels = labelled or self.labelled(batch)
        return in_chunks(self._chunk, hidden, labels, width=self.base.vocab_size)

    def _chunk(self, hidden: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(self.logits(hidden), labels, reduction="none")


def in_chunks(function: Callable[..., Tensor], *columns: Tensor, width: int) -> Tensor:
    """`function(*columns)` by rows: with more than one chunk, each is recomputed going backward.

    `width` is how many logits `function` makes for a row. It gives one row for each of theirs, and
    draws nothing at random.
    """
    rows = max(1, CHUNK_ELEMENTS // width)
    if len(columns[0]) <= rows:
        return function(*columns)
    chunks = zip(*(torch.split(column, rows) for column in columns), strict=True)
    return torch.cat(
        [
            checkpoint(function, *chunk, use_reentrant=False, preserve_rng_state=False)
            for chunk in chunks
        ]
    )


def weighted(values: Tensor, batch: Batch) -> Tensor:
    """`values` (n,), one for each label, multiplied by the labels' weights where there are any."""
    if batch.weights is None:
        return values
    return values * batch.weights[0][batch.labels[0] != IGNORE]


def per_segment(values: Tensor, batch: Batch) -> Tensor:
    """Sums (segments,) of `values` (n,), one for each label, always added in the same order."""
    labelled = (batch.labels[0] != IGNORE).cpu()
    counts = [int(labelled[segment].sum()) for segment in batch.segments()]
    return torch.stack([part.sum() for part in torch.split(values, counts)])


def per_document(values: Tensor, batch: Batch) -> list[tuple[float, float]]:
    """(sum of `values`, labels by their weights) of each document; `values` (n,): of each label."""
    labelled = (batch.labels[0] != IGNORE).cpu()
    lengths = [int(labelled[document].sum()) for document in batch.documents()]
    columns = values.detach(), weighted(torch.ones_like(values), batch)
    sums, counts = (
        [part.sum().item() for part in torch.split(column.cpu().double(), lengths)]
        for column in columns
    )
    return list(zip(sums, counts, strict=True))
