"""A part of a micro-batch: some of its documents, laid end to end like the whole.

whole   A A A A | B B B | C C        keep B and C:   B B B | C C
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from graftlab.types import IGNORE, Batch


def segments_of_kind(batch: Batch, kind: int) -> Tensor:
    """Which segments (bool, on the CPU) are of `kind`."""
    if batch.kinds is None:
        return torch.zeros(len(batch.boundaries) - 1, dtype=torch.bool)
    return batch.kinds == kind


def positions_of(batch: Batch, segments: Tensor) -> Tensor:
    """Which of the N positions (bool, on the batch's device) lie in these segments."""
    lengths = batch.boundaries.diff().long()
    return torch.repeat_interleave(segments, lengths).to(batch.labels.device)


def part_of(batch: Batch, segments: Tensor) -> Batch:
    """The micro-batch of these segments alone, which are whole documents.

    Without any it is a single unlabelled position, as `make_batch` makes of no documents: who must
    pass together with other processes still does.
    """
    if bool(segments.all()):
        return batch
    if not bool(segments.any()):
        return replace(
            batch,
            input_ids=batch.input_ids[:, :1],
            labels=torch.full_like(batch.labels[:, :1], IGNORE),
            positions=torch.zeros_like(batch.positions[:, :1]),
            boundaries=torch.tensor([0, 1], dtype=batch.boundaries.dtype),
            parents=None if batch.parents is None else torch.full_like(batch.parents[:1], -1),
            owners=None if batch.owners is None else torch.zeros_like(batch.owners[:1]),
            kinds=None if batch.kinds is None else torch.zeros_like(batch.kinds[:1]),
            weights=None if batch.weights is None else batch.weights[:, :1],
            reference=None,
        )
    where = positions_of(batch, segments).nonzero()[:, 0]
    number = segments.cumsum(0) - 1  # of a kept segment among those kept

    def taken(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor.index_select(1, where)

    def kept(table: Tensor | None) -> Tensor | None:
        return None if table is None else table[segments.to(table.device)]

    parents, owners = kept(batch.parents), kept(batch.owners)
    if parents is not None:
        renumbered = number.to(parents.dtype)[parents.long().clamp(min=0)]
        parents = torch.where(parents < 0, parents, renumbered)
    if owners is not None:
        owners = torch.unique_consecutive(owners, return_inverse=True)[1].to(owners.dtype)
    lengths = batch.boundaries.diff()[segments]
    return replace(
        batch,
        input_ids=batch.input_ids.index_select(1, where),
        labels=batch.labels.index_select(1, where),
        positions=batch.positions.index_select(1, where),
        boundaries=torch.cat([lengths.new_zeros(1), lengths.cumsum(0).to(lengths.dtype)]),
        parents=parents,
        owners=owners,
        kinds=kept(batch.kinds),
        weights=taken(batch.weights),
        reference=kept(batch.reference),
    )
