"""An author's text in numbers: lengths of sentences, frequent words, and words of their own."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from math import log, sqrt
from statistics import fmean, pstdev
from typing import Any

from graftlab.data.files import locate
from graftlab.errors import ConfigError
from graftlab.recipes.sentences import sentences_of
from graftlab.recipes.words import words_of

CHUNK = 500
"""Words of a piece of the corpus: the spread between pieces is what a voice is measured in."""
LEAST_CHUNKS = 4
PRIOR = 1000.0
"""Words that the prior of Monroe et al. is worth, spread as in both texts together."""
MARKED = 1.96
"""Standard errors by which a word must stand out to mark the author."""


@dataclass(frozen=True, slots=True)
class Author:
    """What replies are compared with."""

    lengths: Sequence[int]
    """Words of each sentence, sorted."""
    frequent: dict[str, tuple[float, float]]
    """Word -> (mean, standard deviation) of its share in the pieces of the corpus."""
    marking: frozenset[str]
    """Words that mark the author, none of them among the frequent ones."""
    rate: float
    """Share of the corpus that they make up."""

    def sentence_lengths(self, text: str) -> list[int]:
        """Words of each sentence of a text, as those of the corpus are counted."""
        return sentence_lengths(text)

    def delta(self, words: Sequence[str]) -> float | None:
        """Quadratic Delta: the mean squared distance of word shares, in the corpus's variances.

        What drawing so few words adds is taken off, so that its expectation is the same for any
        number of words, and a single one may be negative. None for fewer than two words.
        """
        counts, total = Counter(words), len(words)
        if total < 2:
            return None
        apart = []
        for word, (mean, spread) in self.frequent.items():
            share = counts[word] / total
            chance = share * (1 - share) / (total - 1)
            apart.append(((share - mean) ** 2 - chance) / spread**2)
        return fmean(apart)

    def vocabulary(self, words: Sequence[str]) -> float:
        """Share of words that mark the author, as a multiple of the author's own."""
        used = sum(word in self.marking for word in words) / max(len(words), 1)
        return used / self.rate if self.rate else 0.0


@lru_cache(maxsize=8)
def read_author(
    corpus: tuple[str, ...],
    plain: tuple[str, ...],
    *,
    frequent: int,
    words: int,
    key: str = "metrics.persona",
) -> Author:
    """The author of `corpus`. Raises ConfigError for files that are missing, empty or too short,
    naming the `key` that they stand under.
    """
    text = _text(f"{key}.corpus", corpus)
    own = words_of(text)
    chunks = [own[at : at + CHUNK] for at in range(0, len(own) - CHUNK + 1, CHUNK)]
    if len(chunks) < LEAST_CHUNKS:
        raise ConfigError(
            f"{key}.corpus has {len(own)} words: an author is known by "
            f"{CHUNK * LEAST_CHUNKS} or more."
        )
    voice = {}
    common = [word for word, _ in Counter(own).most_common(frequent)]
    for word in common:
        shares = [chunk.count(word) / CHUNK for chunk in chunks]
        if spread := pstdev(shares):
            voice[word] = (fmean(shares), spread)
    marking: frozenset[str] = frozenset()
    if plain:
        others = words_of(_text(f"{key}.plain", plain))
        kept, its = Counter(own), Counter(others)
        for word in common:  # the voice is known by those
            del kept[word], its[word]
        marking = marking_words(kept, its, most=words)
        if not marking:
            raise ConfigError(f"{key}.plain: no word marks the author against this text.")
    rate = sum(word in marking for word in own) / len(own)
    return Author(sorted(sentence_lengths(text)), voice, marking, rate)


def marking_words(own: Counter[str], others: Counter[str], *, most: int) -> frozenset[str]:
    """Words of which `own` has more than chance would, those furthest from it first.

    Log-odds ratios with an informative Dirichlet prior, in standard errors: equations 16 to 22 of
    Monroe, Colaresi & Quinn (2008), the prior being both texts together.
    """
    both = own + others
    total, first, second = both.total(), own.total(), others.total()
    scores = {}
    for word, count in both.items():
        prior = PRIOR * count / total
        mine, its = own[word] + prior, others[word] + prior
        odds = log(mine / (first + PRIOR - mine)) - log(its / (second + PRIOR - its))
        scores[word] = odds / sqrt(1 / mine + 1 / its)
    marked = [word for word, score in scores.items() if score > MARKED and own[word] > 1]
    return frozenset(sorted(marked, key=lambda word: (-scores[word], word))[:most])


def sentence_lengths(text: str) -> list[int]:
    """Words of each sentence of a text with paragraphs."""
    paragraphs = re.split(r"\n\s*\n", text)
    lengths = (
        len(words_of(sentence))
        for paragraph in paragraphs
        for sentence in sentences_of(" ".join(paragraph.split()))
    )
    return [length for length in lengths if length]


def spread_apart(first: Sequence[int], second: Sequence[int]) -> float:
    """The 1-Wasserstein distance of two samples, in their own unit: the area between both
    distribution functions; `second` is sorted.
    """
    first = sorted(first)
    places = sorted({*first, *second})
    area = 0.0
    for left, right in pairwise(places):
        apart = bisect_right(first, left) / len(first) - bisect_right(second, left) / len(second)
        area += abs(apart) * (right - left)
    return area


def named_files(paths: Any) -> tuple[str, ...]:
    """Paths as they are given: one, several or none."""
    return (paths,) if isinstance(paths, str) else tuple(map(str, paths or ()))


def _text(key: str, paths: tuple[str, ...]) -> str:
    """What the files hold, as one text. Raises ConfigError."""
    parts = []
    for path in locate(key, list(paths)):
        try:
            parts.append(path.read_text(encoding="utf-8-sig"))
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
            raise ConfigError(f"{key}={path} cannot be read: {reason}.") from error
    return "\n\n".join(parts)
