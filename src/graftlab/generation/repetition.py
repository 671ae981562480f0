"""How much a text repeats itself: the measure behind the repetition alarm ("Vac Vac Vac")."""

from __future__ import annotations

LONGEST_WORD = 20
"""Longer runs without a space are taken letter by letter: loops such as "VacVacVac", CJK text."""


def repetition(text: str) -> float:
    """Share of the text's word 3-grams that repeat an earlier one: 0 is all new, 1 is a loop.

    A text of fewer than four words is 0: it has no room to repeat itself.
    """
    units = [
        unit for word in text.split() for unit in ([word] if len(word) <= LONGEST_WORD else word)
    ]
    grams = list(zip(units, units[1:], units[2:], strict=False))
    if len(grams) < 2:
        return 0.0
    return 1.0 - len(set(grams)) / len(grams)
