"""Which records are alike, in bounded memory: MinHash sketches, bands, then the exact measure.

    record ──▶ word n-grams ──▶ 128 minima ──▶ bands of r, hashed to 64 bits   who might be alike
                                          └──▶ one byte of each minimum        how alike, about

MinHash with banding is A. Broder's and the textbook's; keeping a byte of each minimum is b-bit
minwise hashing (arXiv:0910.3349). Bands are sorted integer arrays, no dictionaries: about 500 bytes
per record, and the records themselves lie on disk.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import islice
from typing import Any

import numpy as np

from graftlab.errors import ConfigError
from graftlab.recipes.spool import Spool
from graftlab.recipes.words import jaccard, shingles

MINIMA = 128
NGRAM = 3
"""Words per n-gram: short enough for turns of a few words."""
_SEED = 1
_CHUNK = 2048
_SLACK = 0.12
"""What the sketch's estimate may miss: three standard deviations at 128 minima."""
_RECALL = 0.98


def bands_for(near: float) -> tuple[int, int]:
    """(bands, minima per band): the widest bands that still find 98 % of pairs as alike as `near`.

    A pair of similarity s shares a band with probability 1 - (1 - s ** rows) ** bands.
    """
    for rows in range(32, 1, -1):
        bands = MINIMA // rows
        if 1 - (1 - near**rows) ** bands >= _RECALL:
            return bands, rows
    return MINIMA, 1


class Neighbours:
    """Finds earlier records that are alike: for each number in order, ask `of` and then `keep`."""

    def __init__(self, spool: Spool, near: float) -> None:
        """`near` is the Jaccard similarity of word n-grams from which records count as alike."""
        self.spool, self.near = spool, near
        self._shingles = lru_cache(4096)(self._read_shingles)
        keys, sketches = self._sketched()
        self._sketches = sketches
        # Band hashes become numbers of buckets; those of one record are left out (-1).
        self._buckets = np.full(keys.shape, -1, np.int32)
        total = 0
        for band in range(keys.shape[1]):
            _, inverse, sizes = np.unique(keys[:, band], return_inverse=True, return_counts=True)
            shared = sizes > 1
            numbers = np.where(shared, np.cumsum(shared) - 1 + total, -1).astype(np.int32)
            self._buckets[:, band] = numbers[inverse]
            total += int(shared.sum())
        # The first and the latest kept record of every bucket stand for it.
        self._first = np.full(total, -1, np.int32)
        self._latest = np.full(total, -1, np.int32)

    def _sketched(self) -> tuple[np.ndarray, np.ndarray]:
        """Band hashes (n, bands) uint64, and a byte of each minimum (n, MINIMA) uint8."""
        bands, rows = bands_for(self.near)
        keys, sketches = [np.zeros((0, bands), np.uint64)], [np.zeros((0, MINIMA), np.uint8)]
        records = iter(self.spool)
        while sets := [shingles(record, NGRAM) for record in islice(records, _CHUNK)]:
            digests = _minhash().digests_from_token_sets(sets, MINIMA, _SEED)
            minima = np.array(digests, np.uint32)
            sketches.append(minima.astype(np.uint8))
            used = minima[:, : bands * rows].astype(np.uint64)
            found = np.zeros((len(minima), bands), np.uint64)
            for column in range(rows):
                found = (found ^ used[:, column::rows]) * np.uint64(0x9E3779B97F4A7C15)
                found ^= found >> np.uint64(29)
            keys.append(found)
        return np.concatenate(keys), np.concatenate(sketches)

    def _shared(self, number: int) -> np.ndarray:
        """The buckets of a record in which there are others, too."""
        own: np.ndarray = self._buckets[number]
        return own[own >= 0]

    def of(self, number: int) -> Iterator[tuple[int, float]]:
        """(earlier kept record, similarity) for those found at least `near`, in order."""
        own = self._shared(number)
        if not len(own):  # nearly all
            return
        found = np.unique(np.concatenate([self._first[own], self._latest[own]]))
        found = found[found >= 0]
        same = (self._sketches[found] == self._sketches[number]).mean(axis=1)
        estimate = (same - 1 / 256) / (1 - 1 / 256)
        for other in found[estimate >= self.near - _SLACK].tolist():
            similarity = jaccard(self._shingles(other), self._shingles(number))
            if similarity >= self.near:
                yield other, similarity

    def keep(self, number: int) -> None:
        """The record stays, and later ones are compared with it."""
        own = self._shared(number)
        self._latest[own] = number
        self._first[own[self._first[own] < 0]] = number

    def _read_shingles(self, number: int) -> frozenset[str]:
        return frozenset(shingles(self.spool[number], NGRAM))


def _minhash() -> Any:
    try:
        from rensa import RMinHash
    except ImportError as error:
        raise ConfigError(
            "finding near-duplicates needs rensa: pip install rensa (or switch it off with "
            "dedupe.near=null split.near=null)"
        ) from error
    return RMinHash
