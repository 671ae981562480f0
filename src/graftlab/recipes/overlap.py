"""How much of an answer stands in its question already, in words."""

from __future__ import annotations

import re
from collections.abc import Sequence

_WORD = re.compile(r"\w+(?:['’]\w+)*")


def words_of(text: str) -> list[str]:
    """Words as compared: lower case, without punctuation."""
    return _WORD.findall(text.lower())


def shared_ngrams(asked: list[str], answered: list[str], n: int) -> float:
    """Share of the answer's n-grams that the question holds: 0 is all new, 1 can be copied."""
    ours = _ngrams(answered, n)
    if not ours:
        return 0.0
    theirs = set(_ngrams(asked, n))
    return sum(gram in theirs for gram in ours) / len(ours)


def longest_run(asked: list[str], answered: list[str]) -> int:
    """Words of the longest stretch that both have, in time n log n of their words.

    Runs of 1, 2, 4 ... words are numbered while both have one in common; the longest is put
    together from these, the long ones first.
    """
    doubled: list[Runs] = []
    runs: Runs = (asked, answered)
    while _in_both(runs):
        doubled.append(runs)
        runs = _joined(runs, runs, 2 ** (len(doubled) - 1))
    longest, runs = 0, ([0] * len(asked), [0] * len(answered))
    for power in reversed(range(len(doubled))):
        longer = _joined(runs, doubled[power], longest)
        if _in_both(longer):
            longest, runs = longest + 2**power, longer
    return longest


Runs = tuple[Sequence[object], Sequence[object]]
"""Of the question and of the answer, for each place what stands for the run that begins there."""


def _in_both(runs: Runs) -> bool:
    return not set(runs[0]).isdisjoint(runs[1])


def _joined(first: Runs, second: Runs, offset: int) -> Runs:
    """The runs of `first`, of `offset` words, each with that of `second` behind it, as numbers."""
    numbers: dict[object, int] = {}

    def numbered(one: Sequence[object], other: Sequence[object]) -> list[int]:
        pairs = zip(one, other[offset:], strict=False)
        return [numbers.setdefault(pair, len(numbers)) for pair in pairs]

    return numbered(first[0], second[0]), numbered(first[1], second[1])


def _ngrams(words: list[str], n: int) -> list[tuple[str, ...]]:
    return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
