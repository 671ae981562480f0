"""A part of a micro-batch is the micro-batch of those documents."""

from __future__ import annotations

import numpy as np
import torch

from graftlab.packing.parts import part_of, positions_of, segments_of_kind
from graftlab.packing.rows import make_batch
from graftlab.types import ANCHOR, CHOSEN, IGNORE, PLAIN, REJECTED, Tokens


class Documents:
    """Stands in for a token set: two plain documents, a pair, and an anchor of two branches."""

    weights = np.ones(1, np.float32)
    reference = None
    branched = True
    segments = np.zeros((1, 3), np.int32)
    tables = (
        [[4, -1, PLAIN]],
        [[3, -1, ANCHOR]],
        [[3, -1, PLAIN], [2, 0, CHOSEN], [1, 0, REJECTED]],
        [[2, -1, ANCHOR], [3, 0, ANCHOR], [2, 0, ANCHOR]],
    )

    def __getitem__(self, index: int) -> Tokens:
        table = np.array(self.tables[index], np.int32)
        length = int(table[:, 0].sum())
        ids = np.arange(length, dtype=np.int32) + 100 * index
        weights = np.linspace(0.5, 1.5, length).astype(np.float32)
        return Tokens(ids, ids + 1, table, weights)


def same(ours, theirs) -> None:
    for name in ("input_ids", "labels", "positions", "boundaries", "parents", "owners", "kinds"):
        mine, other = getattr(ours, name), getattr(theirs, name)
        assert (mine is None) == (other is None), name
        assert mine is None or (torch.equal(mine, other) and mine.dtype == other.dtype), name
    assert torch.equal(ours.weights, theirs.weights)


def test_the_part_is_what_those_documents_alone_would_be():
    documents = Documents()
    whole = make_batch(documents, [0, 1, 2, 3], step_units=9, micro_step=2, ends_step=False)
    kept = segments_of_kind(whole, ANCHOR)
    assert kept.tolist() == [False, True, False, False, False, True, True, True]
    part = part_of(whole, kept)
    same(part, make_batch(documents, [1, 3], step_units=9))
    assert (part.step_units, part.micro_step, part.ends_step) == (9, 2, False)
    assert part.parents.tolist() == [-1, -1, 1, 1]
    rest = part_of(whole, ~kept)
    same(rest, make_batch(documents, [0, 2], step_units=9))
    where = positions_of(whole, kept)
    assert torch.equal(whole.input_ids[:, where], part.input_ids)
    assert part_of(whole, torch.ones(8, dtype=torch.bool)) is whole


def test_nothing_is_one_unlabelled_position():
    whole = make_batch(Documents(), [0, 2], step_units=9)
    part = part_of(whole, segments_of_kind(whole, ANCHOR))
    assert part.num_tokens == 1
    assert part.labels.tolist() == [[IGNORE]]
    assert part.boundaries.tolist() == [0, 1]
    assert (part.parents.tolist(), part.owners.tolist(), part.kinds.tolist()) == (
        [-1],
        [0],
        [PLAIN],
    )
