"""Segments into runs: what one attention computes, and which keys it sees besides its own.

    segments   P P P P   C C C   R R        parents -1, 0, 0
    runs       └─ one run ───┘              the prompt and the branch right behind it: causal
                                └──┘        a run of its own, whose queries see P P P P | R R

Without parents every segment is a document, and a run.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

from torch import Tensor

Extent = tuple[int, int]
"""(start, end) among the N positions of a flat row."""


class Run(NamedTuple):
    """Neighbouring segments that each continue the one before them."""

    start: int
    end: int
    prefix: tuple[Extent, ...] = ()
    """What it continues, from the root on: as many positions as come before its own."""

    @property
    def before(self) -> int:
        """The position of its first token, which is the number of tokens in its prefix."""
        return sum(end - start for start, end in self.prefix)


def find_runs(boundaries: Tensor, parents: Tensor | None) -> list[Run]:
    """The runs of a batch, in order: together they hold every position once.

    `boundaries` (segments + 1,) and `parents` (segments,) are those of `Batch`. A prefix lies
    before its run, so that what runs add to their prefixes' gradients is added in order.
    """
    extents = list(pairwise(boundaries.tolist()))
    if parents is None:
        return [Run(start, end) for start, end in extents]
    paths: list[tuple[Extent, ...]] = []
    runs: list[Run] = []
    for index, (parent, (start, end)) in enumerate(zip(parents.tolist(), extents, strict=True)):
        assert -1 <= parent < index, "a segment comes behind the one that it continues"
        prefix = paths[parent] if parent >= 0 else ()
        paths.append(_extended(prefix, start, end))
        if 0 <= parent == index - 1:
            runs[-1] = runs[-1]._replace(end=end)
        else:
            runs.append(Run(start, end, prefix))
    return runs


def _extended(path: tuple[Extent, ...], start: int, end: int) -> tuple[Extent, ...]:
    if path and path[-1][1] == start:
        return (*path[:-1], (path[-1][0], end))
    return (*path, (start, end))
