"""Openings and n-grams that many rows share: a template, a habit, a text that was copied.

Counts are of rows, each row once. Memory is bounded by lossy counting (Manku and Motwani): when
there are too many candidates, the rarest are forgotten.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from graftlab.recipes.words import ngrams, words_of

OPENING = 4
"""Words of an opening."""
NGRAM = 6
"""Words of an n-gram: longer than most idioms."""
MOST = 200_000
"""Candidates held at a time."""
_WORDS_READ = 400
"""Words of an answer that are read for n-grams."""


@dataclass(slots=True)
class Frequent:
    """A counter of at most `most` things; what is rarer than `floor` may be missing from it."""

    most: int = MOST
    floor: int = 0
    counts: Counter[str] = field(default_factory=Counter)

    def add(self, things: Iterable[str]) -> None:
        """Count each thing once."""
        self.counts.update(things)
        while len(self.counts) > self.most:
            self.floor += 1
            kept = {thing: n for thing, n in self.counts.items() if n > self.floor}
            self.counts = Counter(kept)

    def top(self, count: int, *, least: int = 2) -> list[tuple[str, int]]:
        """The most frequent, those of equal counts by name."""
        several = (item for item in self.counts.items() if item[1] >= least)
        return heapq.nsmallest(count, several, key=lambda item: (-item[1], item[0]))


@dataclass(slots=True)
class Phrases:
    """What the rows of a sample have in common."""

    openings: dict[str, Frequent] = field(default_factory=dict)
    """Part -> its first words."""
    runs: Frequent = field(default_factory=Frequent)
    """n-grams of answers, or of text where there are no answers."""
    rows: int = 0

    def add(self, said: dict[str, list[str]]) -> None:
        """One row, as part -> its texts."""
        self.rows += 1
        for part, texts in said.items():
            opened = {" ".join(words_of(text[:400])[:OPENING]) for text in texts}
            self.openings.setdefault(part, Frequent()).add(opened - {""})
        runs: set[str] = set()
        for part in ("assistant", "text", "chosen"):
            for text in said.get(part, []):
                words = words_of(text[: 12 * _WORDS_READ])[:_WORDS_READ]
                if len(words) >= NGRAM:
                    runs.update(ngrams(words, NGRAM))
        self.runs.add(sorted(runs))

    def top_runs(self, count: int) -> list[tuple[str, int]]:
        """The most frequent n-grams; of those that overlap by all but a word, one stands."""
        told: list[tuple[str, int]] = []
        edges: set[str] = set()
        for run, number in self.runs.top(20 * count):
            head, tail = run.rsplit(" ", 1)[0], run.split(" ", 1)[1]
            if not edges & {head, tail}:
                told.append((run, number))
            edges |= {head, tail}
        return told[:count]
