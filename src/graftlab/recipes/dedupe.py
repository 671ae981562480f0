"""The step `dedupe`: of records that say the same, or nearly, the first one stays."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from graftlab.errors import require_range
from graftlab.recipes.record import Drop, Record
from graftlab.recipes.spool import Spool
from graftlab.recipes.words import family

if TYPE_CHECKING:
    import numpy as np

    from graftlab.recipes.similar import Neighbours


@dataclass(kw_only=True, slots=True)
class Dedupe:
    """`dedupe.near=0.8`."""

    exact: bool = True
    """Drop records whose content is the same, letter by letter, as that of an earlier one."""
    near: float | None = 0.8
    """Also drop those that share this much of their words, in runs of three, with an earlier one
    (Jaccard similarity, 0 to 1); null keeps them. Variants of one row are not held against each
    other."""

    def __post_init__(self) -> None:
        require_range("dedupe.near", self.near, above=0, most=1)

    def apply(self, records: Iterator[Record], drop: Drop) -> Iterator[Record]:
        """Kept records in their order; all must be seen before the first can go on."""
        if not self.exact and self.near is None:
            yield from records
            return
        digests = bytearray()
        with Spool() as spool:
            for record in records:
                spool.add(record)
                digests += content_digest(record)
            first = first_of_same(digests) if self.exact else range(len(spool))
            alike = None
            if self.near is not None:
                from graftlab.recipes.similar import Neighbours

                alike = Neighbours(spool, self.near)
            for number, record in enumerate(spool):
                if first[number] != number:
                    drop(record, "exact duplicate", f"same as {spool[int(first[number])].origin}")
                elif alike is not None and (twin := _twin(number, record, spool, alike)):
                    drop(record, "near duplicate", twin)
                else:
                    if alike is not None:
                        alike.keep(number)
                    yield record


def _twin(number: int, record: Record, spool: Spool, alike: Neighbours) -> str | None:
    """Which earlier kept record this one repeats, and how much; None when it may stay."""
    for other, similarity in alike.of(number):
        twin = spool[other]
        if family(twin) != family(record):
            return f"{similarity:.2f} like {twin.origin}"
    return None


def content_digest(record: Record) -> bytes:
    """16 bytes that depend on kind and body only."""
    text = json.dumps([record.kind, record.body], sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def first_of_same(digests: bytes | bytearray, size: int = 16) -> np.ndarray:
    """For each of n digests of `size` bytes the number of the first that equals it; (n,) int64."""
    import numpy as np

    found = np.frombuffer(bytes(digests), f"S{size}")
    _, first, inverse = np.unique(found, return_index=True, return_inverse=True)
    numbers: np.ndarray = first[inverse]
    return numbers
