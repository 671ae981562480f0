"""`metrics=chrf`: how many runs of characters and of words reply and reference share."""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from graftlab.errors import require_range
from graftlab.evaluation.metrics.base import MORE, Measure, Metric, lacks_reference
from graftlab.registry import choice

if TYPE_CHECKING:
    from graftlab.evaluation.replies import Case, Judged
    from graftlab.generation.prompts import Prompt

CHARACTERS = 6
BETA = 2.0
"""Recall counts so many times as much as precision."""


@choice("chrf")
@dataclass(kw_only=True, slots=True)
class Chrf(Metric):
    """chrF (Popović 2015, ACL W15-3049) of one reply, 0 to 100, the same number as sacrebleu's.

    `word_order=2` is chrF++ (Popović 2017, ACL W17-4770). Orders that reply or reference are too
    short for are left out: a reply that is the reference has 100, however short it is.
    """

    word_order: int = 0
    """Runs of up to so many words count as well: 0 is chrF, 2 is chrF++."""

    def __post_init__(self) -> None:
        require_range("metrics.chrf.word_order", self.word_order, least=0, most=4)

    def measures(self) -> dict[str, Measure]:
        name = "chrF" + "+" * self.word_order
        about = f"{name}: runs of characters shared with the reference"
        return {"avg_chrf": Measure(about=about, better=MORE, most=100.0)}

    def lacks(self, prompt: Prompt) -> str | None:
        return lacks_reference(prompt)

    def score(self, case: Case) -> Judged:
        said, wanted = case.said.text, case.prompt.expected or ""
        found = [
            *_shared("".join(said.split()), "".join(wanted.split()), CHARACTERS),
            *_shared(_words(said), _words(wanted), self.word_order),
        ]
        if not found:
            return {"avg_chrf": 0.0}
        precision, recall = (sum(part) / len(found) for part in zip(*found, strict=True))
        weighed = BETA**2 * precision + recall
        score = (1 + BETA**2) * precision * recall / weighed if weighed else 0.0
        return {"avg_chrf": 100 * score}


def _shared(said: Sequence[str], wanted: Sequence[str], longest: int) -> list[tuple[float, float]]:
    """(precision, recall) of the runs of each length that both have."""
    found = []
    for size in range(1, min(longest, len(said), len(wanted)) + 1):
        mine, its = (Counter(_runs(one, size)) for one in (said, wanted))
        both = (mine & its).total()
        found.append((both / mine.total(), both / its.total()))
    return found


def _runs(text: Sequence[str], size: int) -> list[tuple[str, ...]]:
    return [tuple(text[at : at + size]) for at in range(len(text) - size + 1)]


def _words(text: str) -> list[str]:
    """Words, a mark of punctuation at their end or else at their beginning being one of its own."""
    found = []
    for word in text.split():
        if len(word) > 1 and word[-1] in string.punctuation:
            found += [word[:-1], word[-1]]
        elif len(word) > 1 and word[0] in string.punctuation:
            found += [word[0], word[1:]]
        else:
            found.append(word)
    return found
