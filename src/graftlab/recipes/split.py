"""The step `split`: training, validation and test, by content, so that no twin is on two sides.

    records ──▶ clusters: same content, near-duplicates, variants of one row ──▶ a hash for each
    hash    ──▶ per source, lowest first: test until its share is full, then valid, the rest train

A side depends on what a cluster says, not on where it stands or on a seed: rows that are added move
only those at the edge of a share.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from graftlab.errors import ConfigError, require_range
from graftlab.recipes.dedupe import content_digest, first_of_same
from graftlab.recipes.record import Drop, Record
from graftlab.recipes.spool import Spool
from graftlab.recipes.words import family, hash64

if TYPE_CHECKING:
    import numpy as np

SIDE = "split"
"""The label under which a record carries its side to the writer, which takes it off."""
SIDES = ("train", "valid", "test")


@dataclass(kw_only=True, slots=True)
class Split:
    """`split.valid=0.1`."""

    valid: float = 0.1
    """Share of each source that is held out for validation."""
    test: float = 0.0
    """Share of each source that is held out for a test at the end; 0 writes no test.jsonl."""
    near: float | None = 0.8
    """Records that share this much of their words stay on one side; null looks for equal ones and
    for variants of one row only."""

    def __post_init__(self) -> None:
        require_range("split.valid", self.valid, least=0, most=0.9)
        require_range("split.test", self.test, least=0, most=0.9)
        require_range("split.near", self.near, above=0, most=1)
        if self.valid + self.test > 0.9:
            raise ConfigError(
                f"split.valid={self.valid} and split.test={self.test} leave less than a tenth of "
                "the data to train on."
            )

    def apply(self, records: Iterator[Record], drop: Drop) -> Iterator[Record]:
        """All records in their order, each with its side under the label `split`."""
        if not self.valid and not self.test:
            for record in records:
                yield _on(record, "train")
            return
        digests, families, sources = array("Q"), array("Q"), array("l")
        names: dict[str, int] = {}
        with Spool() as spool:
            for record in records:
                spool.add(record)
                digests.frombytes(content_digest(record)[:8])
                families.append(hash64(family(record)))
                sources.append(names.setdefault(record.source, len(names)))
            clusters = _Clusters(len(spool))
            for values in (digests, families):
                for number, first in enumerate(first_of_same(values.tobytes(), 8).tolist()):
                    clusters.join(first, number)
            if self.near is not None:
                from graftlab.recipes.similar import Neighbours

                alike = Neighbours(spool, self.near)
                for number in range(len(spool)):
                    for other, _ in alike.of(number):
                        clusters.join(other, number)
                    alike.keep(number)
            sides = self._deal(clusters.roots(), digests, sources)
            for number, record in enumerate(spool):
                yield _on(record, SIDES[sides[number]])

    def _deal(self, roots: array[int], digests: array[int], sources: array[int]) -> np.ndarray:
        """The side of every record, as its number in SIDES; (n,)."""
        import numpy as np

        first, cluster, sizes = np.unique(
            np.asarray(roots), return_inverse=True, return_counts=True
        )
        lowest = np.full(len(first), np.iinfo(np.uint64).max, np.uint64)
        np.minimum.at(lowest, cluster, np.asarray(digests))
        # Spread anew: the lowest of many hashes is low, and large clusters would always be first.
        hashes = lowest * np.uint64(0x9E3779B97F4A7C15)
        stratum = np.asarray(sources)[first]
        sides = np.zeros(len(first), np.uint8)
        for source in range(int(stratum.max(initial=-1)) + 1):
            own = np.flatnonzero(stratum == source)
            rows = int(sizes[own].sum())
            room = {2: round(self.test * rows), 1: round(self.valid * rows)}
            for number in own[np.argsort(hashes[own], kind="stable")].tolist():
                if not any(room.values()):
                    break
                # A cluster larger than the room left trains: it may be most of the data.
                size = int(sizes[number])
                sides[number] = side = next((s for s, left in room.items() if size <= left), 0)
                if side:
                    room[side] -= size
        if self.valid and len(first) > 1 and not (sides == 1).any():
            sides[np.lexsort((hashes, sizes))[0]] = 1
        dealt: np.ndarray = sides[cluster]
        return dealt


def _on(record: Record, side: str) -> Record:
    return replace(record, labels={**record.labels, SIDE: side})


class _Clusters:
    """Union-find over record numbers; the root of a cluster is its first record."""

    def __init__(self, count: int) -> None:
        self._parent = array("l", range(count))

    def root(self, number: int) -> int:
        parent = self._parent
        while parent[number] != number:
            parent[number] = parent[parent[number]]
            number = parent[number]
        return number

    def roots(self) -> array[int]:
        return array("l", map(self.root, range(len(self._parent))))

    def join(self, first: int, second: int) -> None:
        low, high = sorted((self.root(first), self.root(second)))
        self._parent[high] = low
