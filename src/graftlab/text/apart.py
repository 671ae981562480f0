"""Branches laid apart, each behind a copy of what it shares.

together   P P P | C C | R       one document of 3 + 2 + 1 tokens

a pair     P P P C C | P P P R   one document still: two segments that share nothing
turns      P P P C C             documents of their own, where branches are turns of one
           P P P R               conversation that the template renders anew
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from graftlab.types import IGNORE, PLAIN

Columns = dict[str, Any]
"""Arrays of a token set by name; None for those that it has not."""


def lay_apart(columns: Columns, *, beyond: int | None = None) -> Columns:
    """The same branches behind prompts of their own, in memory; documents without any as they are.

    With `beyond`, only what is longer than that, and is no pair. Unchanged columns are the same
    object.
    """
    table, bounds = columns["segments"], columns["segment_offsets"]
    if table is None or (table[:, 1] < 0).all():
        return columns
    lengths = np.diff(columns["offsets"])
    pieces: list[np.ndarray] = []
    made = _Tables()
    changed = False
    for index, (first, last) in enumerate(
        zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)
    ):
        own, start = table[first:last], int(columns["offsets"][index])
        turns = _are_turns(own)
        whole = beyond is not None and (lengths[index] <= beyond or not turns)
        if whole or (own[:, 1] < 0).all():
            pieces.append(np.arange(start, start + lengths[index]))
            made.add(own.tolist(), columns["parts"][index], columns["sources"][index])
            continue
        changed = True
        branches = []
        for kind, path in _branches(own, start):
            pieces.append(path)
            branches.append([len(path), -1, kind])
        if not turns:
            made.add(branches, columns["parts"][index], columns["sources"][index])
            continue
        for path, branch in zip(pieces[-len(branches) :], branches, strict=True):
            trained = int((columns["labels"][path] != IGNORE).sum())
            system = int(columns["parts"][index][0])
            parts = (system, max(0, len(path) + 1 - system - trained), trained)
            made.add([branch], parts, columns["sources"][index])
    if not changed:
        return columns
    index = np.concatenate(pieces)
    taken = {
        name: None if columns[name] is None else columns[name][index]
        for name in ("input_ids", "labels", "weights")
    }
    return {**columns, **taken, **made.arrays()}


class _Tables:
    """All but the tokens, document by document."""

    def __init__(self) -> None:
        self.segments: list[list[int]] = []
        self.counts: list[int] = []
        self.lengths: list[int] = []
        self.parts: list[Any] = []
        self.sources: list[int] = []

    def add(self, segments: list[list[int]], parts: Any, source: int) -> None:
        self.segments += segments
        self.counts.append(len(segments))
        self.lengths.append(sum(length for length, _, _ in segments))
        self.parts.append(parts)
        self.sources.append(source)

    def arrays(self) -> Columns:
        """By name; without a table where every document is a plain one."""
        segments = np.array(self.segments, np.int32)
        plain = len(segments) == len(self.counts) and (segments[:, 2] == PLAIN).all()
        bounds = np.concatenate([[0], np.cumsum(self.counts)]).astype(np.int64)
        return {
            "offsets": np.concatenate([[0], np.cumsum(self.lengths)]).astype(np.int64),
            "parts": np.array(self.parts, np.int32),
            "sources": np.array(self.sources, np.int32),
            "segments": None if plain else segments,
            "segment_offsets": None if plain else bounds,
        }


def _are_turns(table: np.ndarray) -> bool:
    """Whether nothing compares the branches of a document."""
    return len(table) > 1 and bool((table[:, 2] == PLAIN).all())


def _branches(table: np.ndarray, start: int) -> Iterator[tuple[int, np.ndarray]]:
    """(kind, where its tokens lie with those that it continues) of each branch of a document."""
    edges = start + np.concatenate([[0], np.cumsum(table[:, 0])])
    for leaf in range(len(table)):
        if leaf in table[:, 1]:
            continue
        path, row = [], leaf
        while row >= 0:
            path.append(np.arange(edges[row], edges[row + 1]))
            row = int(table[row, 1])
        yield int(table[leaf, 2]), np.concatenate(path[::-1])
