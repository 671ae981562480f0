"""The parts of the report: signs, repeats and draws."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graftlab.pages.html import esc, percent
from graftlab.recipes.report.phrases import Phrases, top
from graftlab.recipes.report.row_sampling import Lowest
from graftlab.recipes.report.signs import signs_in
from graftlab.recipes.report.turns import turns_in
from recipe_rows import sentence


@pytest.mark.parametrize(
    "said",
    [
        "It's a naïve café; 3 < 4 & 5 > 2, e.g. “so” – São Paulo, NÃO, ÂNGULO, Ä.",
        "第一种方法是使用更好的数据" * 9,
        "Line one\n\tindented\r\nand the next: 50 % of $3.20, x@y and a_b.",
        "😀 ok ✔",
        "42",
    ],
)
def test_what_is_right_is_no_sign(said: str) -> None:
    assert signs_in(said) == []


def test_repeats_are_counted_by_row_and_answers_once() -> None:
    found = Phrases()
    tale = "Once upon a time there lived a king who had three daughters."
    for n in range(10):
        found.add({"user": [f"Tell me a tale, number {n}"], "assistant": [f"{tale} {sentence(n)}"]})
    for _ in range(20):
        found.add({"user": ["Tell me a tale"], "assistant": [f"{tale} {sentence(0)}"]})
    assert top(found.openings["user"], 1) == [("tell me a tale", 30)]
    assert top(found.openings["assistant"], 1) == [("once upon a time", 10)]
    assert found.answers == found.texts["assistant"] == 10
    runs = found.top_runs(5)
    assert runs == [("once upon a time there lived a king who had three daughters", 10)]


@given(st.lists(st.integers(0, 99)), st.integers(1, 12))
def test_the_lowest_lots_are_drawn_in_order_and_once(lots: list[int], size: int) -> None:
    drawer: Lowest[int] = Lowest(size)
    for lot in lots:
        drawer.offer(lot, int, lot)
    lowest = set(sorted(set(lots))[:size])
    # A lot that was pushed out never comes back, so the first of equal ones is what counts.
    assert drawer.drawn() == [lot for lot in dict.fromkeys(lots) if lot in lowest]
    assert drawer.seen == len(lots)


def test_odd_characters_are_told_by_number() -> None:
    assert esc("a<b>\x00\ud800\u202e") == "a&lt;b&gt;" + "".join(
        f'<span class="odd">U+{number}</span>' for number in ("0000", "D800", "202E")
    )


def test_shares_are_never_told_as_nothing_or_everything() -> None:
    told = [percent(part, 10_000) for part in (0, 1, 55, 2500, 9999, 10_000)]
    assert told == ["0.0 %", "&lt; 0.1 %", "0.6 %", "25 %", "&gt; 99.9 %", "100 %"]


def test_every_kind_of_row_says_its_parts() -> None:
    asked = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    said = [("user", "a"), ("assistant", "b")]
    assert list(turns_in({"messages": asked, "tools": [{"name": "age"}], "source": "core"})) == said
    assert list(turns_in({"text": "Prose.", "source": "core"})) == [("text", "Prose.")]
