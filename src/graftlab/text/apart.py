"""Branches laid apart, each behind a copy of what it shares: the plain way, to compare with.

together   P P P | C C | R       3 + 2 + 1 tokens
apart      P P P C C | P P P R   two segments that share nothing, one document as before
"""

from __future__ import annotations

from typing import Any

import numpy as np

Columns = dict[str, Any]
"""Arrays of a token set by name; None for those that it has not."""


def lay_apart(columns: Columns) -> Columns:
    """The same documents with one segment for each branch, in memory; plain ones as they are."""
    table, bounds = columns["segments"], columns["segment_offsets"]
    if table is None or (table[:, 1] < 0).all():
        return columns
    starts = np.concatenate([[0], np.cumsum(table[:, 0])])  # of all segments, in the arrays
    segments: list[list[int]] = []
    order, counts, lengths = [], [], []
    for first, last in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        own = table[first:last]
        leaves = [row for row in range(last - first) if row not in own[:, 1]]
        before = len(segments)
        for leaf in leaves:
            path, row = [], leaf
            while row >= 0:
                path.append(np.arange(starts[first + row], starts[first + row + 1]))
                row = int(own[row, 1])
            order += path[::-1]
            segments.append([sum(len(piece) for piece in path), -1, own[leaf, 2]])
        counts.append(len(leaves))
        lengths.append(sum(length for length, _, _ in segments[before:]))
    index = np.concatenate(order)
    taken = {
        name: None if columns[name] is None else columns[name][index]
        for name in ("input_ids", "labels", "weights")
    }
    return {
        **columns,
        **taken,
        "offsets": np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        "segments": np.array(segments, np.int32),
        "segment_offsets": np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
    }
