"""The repetition measure tells loops from prose, with and without spaces."""

from __future__ import annotations

import pytest

from graftlab.generation.repetition import repetition

PROSE = (
    "The second side opens with a slow waltz, and nobody in the band seems to be in a hurry. A "
    "clarinet takes the tune first, hands it to the strings, and comes back only for the last "
    "chord. It was recorded live in one evening, which is why the room itself is part of it."
)


@pytest.mark.parametrize(
    "loop",
    [
        "Vac " * 100,
        "Vac" * 100,
        "!" * 200,
        "the same line again\n" * 40,
        "音楽" * 60,
    ],
)
def test_a_loop_is_near_one(loop: str) -> None:
    assert repetition(loop) > 0.9


@pytest.mark.parametrize(
    "text", [PROSE, PROSE.upper(), "これは、静かな録音です。弦と金管と、辛抱強い太鼓。"]
)
def test_prose_is_near_zero(text: str) -> None:
    assert repetition(text) < 0.05


@pytest.mark.parametrize("text", ["", "Yes.", "No no no", " \n "])
def test_too_short_to_repeat(text: str) -> None:
    assert repetition(text) == 0.0


def test_share_is_of_the_3_grams() -> None:
    # abc bcd cda dab | abc bcd: two of six repeat
    assert repetition("a b c d a b c d") == pytest.approx(2 / 6)


def test_prose_that_ends_in_a_loop_lies_between() -> None:
    assert 0.3 < repetition(PROSE + " Vac" * 50) < 0.9
