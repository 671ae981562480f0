"""The parts of the report: signs, languages, repeats, draws and charts."""

from __future__ import annotations

import re
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graftlab.pages.html import esc, percent
from graftlab.recipes.report.charts import edges, histogram
from graftlab.recipes.report.language import guess
from graftlab.recipes.report.phrases import Frequent, Phrases
from graftlab.recipes.report.row_sampling import Lowest, turns_in
from graftlab.recipes.report.signs import mostly_symbols, signs_in
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


@given(st.text(st.characters(max_codepoint=127), max_size=60))
def test_ascii_takes_no_other_path_than_the_rest(text: str) -> None:
    assert (mostly_symbols(text) is None) == (mostly_symbols(text + "\u2003") is None)


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("The cat is on the mat, and it was there all day.", "English"),
        ("Der Hund ist nicht mit der Katze auf dem Weg.", "German"),
        ("Le chat est dans la maison avec les enfants.", "French"),
        ("El perro está en la casa con los niños y las niñas.", "Spanish"),
        ("Il gatto è nella casa con il cane e non si muove.", "Italian"),
        ("O gato não está em casa, mas você também não.", "Portuguese"),
        ("De hond is niet in het huis, maar hij komt ook niet.", "Dutch"),
        ("Привет, как дела у тебя сегодня?", "Cyrillic script"),
        ("今天天气很好。", "CJK script"),
        ("def f(x): return x + 1 if x else [None]", "unclear"),
        ("Apples, pears.", "under 5 words"),
        ("", "under 5 words"),
    ],
)
def test_languages_are_guessed(text: str, language: str) -> None:
    assert guess(text) == language


def test_bars_hold_every_row() -> None:
    values = {0: 4, 1: 3, 5: 9, 700: 2}
    bins = edges(700)
    assert bins[:8] == [0, 1, 2, 3, 4, 6, 8, 12]
    assert bins == sorted(set(bins))
    drawn = histogram(values, bins, median=5, name="core")
    assert [int(n) for n in re.findall(r": (\d+) rows", drawn)] == [4, 3, 9, 2]
    assert "4–5 words: 9 rows" in drawn


def test_repeats_are_counted_by_row_and_answers_once() -> None:
    found = Phrases()
    tale = "Once upon a time there lived a king who had three daughters."
    for n in range(10):
        found.add({"user": [f"Tell me a tale, number {n}"], "assistant": [f"{tale} {sentence(n)}"]})
    for _ in range(20):
        found.add({"user": ["Tell me a tale"], "assistant": [f"{tale} {sentence(0)}"]})
    assert found.openings["user"].top(1) == [("tell me a tale", 30)]
    assert found.openings["assistant"].top(1) == [("once upon a time", 10)]
    assert found.answers == found.texts["assistant"] == 10
    runs = found.top_runs(5)
    assert runs == [("once upon a time there lived a king who had three daughters", 10)]


@given(st.lists(st.integers(0, 60).map(str), max_size=400), st.integers(4, 20))
def test_forgetting_is_bounded(things: list[str], most: int) -> None:
    frequent = Frequent(most=most)
    for thing in things:
        frequent.add({thing})
        assert len(frequent.counts) <= most
    true = Counter(things)
    for thing, number in true.items():
        assert frequent.counts[thing] <= number
        if number > frequent.floor * (frequent.floor + 1) // 2:
            assert number - frequent.counts[thing] <= frequent.floor * (frequent.floor + 1) // 2


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
    call = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "age"}}]}
    shared = [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]
    assert list(turns_in({"messages": [call], "tools": [{"name": "age"}]})) == [
        ("assistant", "\nage")
    ]
    assert list(turns_in({"conversations": shared})) == [("user", "a"), ("assistant", "b")]
    rated = {"prompt": "a", "chosen": [{"role": "assistant", "content": "b"}], "rejected": "c"}
    assert list(turns_in(rated)) == [("user", "a"), ("chosen", "b"), ("rejected", "c")]
    assert list(turns_in(["odd", 3])) == [("other", "odd")]
