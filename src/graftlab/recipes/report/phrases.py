"""Openings and n-grams that many rows share: a template, a habit, a text that was copied.

Counts are of rows, each row once.
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
ANSWERS = ("assistant", "text")
"""Parts that a model learns to write."""
_JOINED = 2000
"""n-grams that may be put together to longer runs."""
_WORDS_READ = 400
"""Words of an answer that are read for n-grams."""


def top(counts: Counter[str], number: int, *, least: int = 2) -> list[tuple[str, int]]:
    """The most frequent, those of equal counts by name."""
    several = (item for item in counts.items() if item[1] >= least)
    return heapq.nsmallest(number, several, key=lambda item: (-item[1], item[0]))


@dataclass(slots=True)
class Phrases:
    """What the rows of a sample have in common.

    An answer that several rows share, such as those of its variations, counts once.
    """

    rows: int = 0
    """Rows of the sample."""
    texts: Counter[str] = field(default_factory=Counter)
    """Part -> rows that have it; for answers, those that are not in an earlier row."""
    openings: dict[str, Counter[str]] = field(default_factory=dict)
    """Part -> its first words."""
    runs: Counter[str] = field(default_factory=Counter)
    """n-grams of answers."""
    answers: int = 0
    """Rows with an answer of their own."""
    _known: set[str] = field(default_factory=set)

    def add(self, said: dict[str, list[str]]) -> None:
        """One row, as part -> its texts."""
        self.rows += 1
        runs: set[str] = set()
        answered = False
        for part, texts in said.items():
            if part in ANSWERS:
                texts = self._new(texts)
                runs.update(*map(_runs, texts))
                answered = answered or bool(texts)
            if texts:
                opened = {" ".join(words_of(text[:400])[:OPENING]) for text in texts}
                self.openings.setdefault(part, Counter()).update(opened - {""})
                self.texts[part] += 1
        self.answers += answered
        self.runs.update(runs)

    def _new(self, texts: Iterable[str]) -> list[str]:
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        self._known.update(new)
        return new

    def top_runs(self, count: int) -> list[tuple[str, int]]:
        """The most frequent n-grams; those that overlap and are as frequent are put together."""
        ranked = top(self.runs, _JOINED)
        following = {(_head(run), number): run for run, number in reversed(ranked)}
        leading = {(_tail(run), number): run for run, number in reversed(ranked)}
        told: list[tuple[str, int]] = []
        used: set[str] = set()
        for run, number in ranked:
            if run in used or len(told) == count:
                continue
            words, here = run.split(" "), run
            used.add(run)
            while (here := following.get((_tail(here), number), run)) not in used:
                used.add(here)
                words.append(here.rsplit(" ", 1)[1])
            here = run
            while (here := leading.get((_head(here), number), run)) not in used:
                used.add(here)
                words.insert(0, here.split(" ", 1)[0])
            told.append((" ".join(words), number))
        return told


def _head(run: str) -> str:
    return run.rsplit(" ", 1)[0]


def _tail(run: str) -> str:
    return run.split(" ", 1)[1]


def _runs(text: str) -> list[str]:
    words = words_of(text[: 12 * _WORDS_READ])[:_WORDS_READ]
    return ngrams(words, NGRAM) if len(words) >= NGRAM else []
