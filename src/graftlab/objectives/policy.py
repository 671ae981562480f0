"""The policy an objective asks: base and adapter, scored only where a label is."""

from __future__ import annotations

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
    """Base with adapter, as objectives see it; logits of shape (N, V) never exist."""

    def __init__(self, base: Base, adapter: Adapter | None) -> None:
        self.base = base
        self.adapter = adapter

    def hidden(self, batch: Batch) -> Tensor:
        """Final hidden states (1, N, D) of `batch`."""
        return self.base.hidden(batch)

    def label_nll(self, batch: Batch) -> Tensor:
        """Negative log-likelihood in nats, summed over labelled positions; an fp32 scalar.

        Without a label it is a zero that still has every adapter parameter in its graph, so that a
        process without rows takes part in gradient exchange.
        """
        return self.nll(batch).sum()

    def nll(self, batch: Batch) -> Tensor:
        """Negative log-likelihood of each label in nats, (n,) fp32, in order of position.

        Logits are made in chunks; with more than one, each is recomputed in the backward pass.
        """
        labels = batch.labels[0]
        where = (labels != IGNORE).nonzero()[:, 0]
        hidden = self.hidden(batch)[0].index_select(0, where)
        labels = labels[where]
        rows = max(1, CHUNK_ELEMENTS // self.base.vocab_size)
        if len(where) <= rows:
            return self._chunk(hidden, labels)
        chunks = zip(torch.split(hidden, rows), torch.split(labels, rows), strict=True)
        return torch.cat(
            [
                # The head draws nothing at random: no generator state needs keeping.
                checkpoint(self._chunk, *chunk, use_reentrant=False, preserve_rng_state=False)
                for chunk in chunks
            ]
        )

    def _chunk(self, hidden: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(self.base.logits(hidden).float(), labels, reduction="none")


def nll_per_document(policy: Policy, batch: Batch) -> list[tuple[float, int]]:
    """(summed nats, number of labels) of each document of `batch`, without gradients."""
    with torch.no_grad():
        nll = policy.nll(batch)
    labelled = (batch.labels[0] != IGNORE).cpu()
    counts = [int(labelled[document].sum()) for document in batch.documents()]
    sums = [part.sum().item() for part in torch.split(nll, counts)]
    return list(zip(sums, counts, strict=True))
