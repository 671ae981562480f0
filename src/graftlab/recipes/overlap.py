"""How much of an answer stands in its question already, in words."""

from __future__ import annotations

import re

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
    """Words of the longest stretch that both have.

    A run of k words holds runs of all shorter lengths, so the length is found by halving:
    O(words * log words).
    """
    low, high = 0, min(len(asked), len(answered))
    while low < high:
        middle = (low + high + 1) // 2
        if set(_ngrams(asked, middle)).isdisjoint(_ngrams(answered, middle)):
            high = middle - 1
        else:
            low = middle
    return low


def _ngrams(words: list[str], n: int) -> list[tuple[str, ...]]:
    return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
