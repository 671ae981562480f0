"""Guards drop what would teach the wrong thing, say the numbers, and lose nothing else."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graftlab.errors import ConfigError
from graftlab.recipes import guards
from graftlab.recipes.guards import Guards, is_cut_off
from graftlab.recipes.overlap import longest_run, shared_ngrams
from graftlab.recipes.record import Record
from graftlab.recipes.refusals import refusal_in
from recipe_drops import chat_record, run_step

NUMBERS = [f"w{n}" for n in range(40)]


def test_overlap_counts_by_hand() -> None:
    asked, answered = ["a", "b", "c", "d", "e", "f"], ["x", "b", "c", "d", "y", "e", "f"]
    assert shared_ngrams(asked, answered, 2) == 3 / 6  # bc cd ef of xb bc cd dy ye ef
    assert shared_ngrams(asked, answered, 3) == 1 / 5
    assert shared_ngrams(asked, ["x"], 3) == 0.0
    assert longest_run(asked, answered) == 3
    assert longest_run(asked, []) == 0


@settings(deadline=None)
@given(st.lists(st.sampled_from("abc"), max_size=12), st.lists(st.sampled_from("abc"), max_size=12))
def test_the_longest_run_is_the_longest(one: list[str], other: list[str]) -> None:
    runs = {tuple(one[i:j]) for i in range(len(one)) for j in range(i + 1, len(one) + 1)}
    shared = [
        j - i
        for i in range(len(other))
        for j in range(i + 1, len(other) + 1)
        if tuple(other[i:j]) in runs
    ]
    assert longest_run(one, other) == max(shared, default=0)


def test_a_copied_answer_is_dropped_with_its_numbers() -> None:
    text = " ".join(NUMBERS) + "."
    _, drops = run_step(Guards(), [chat_record(f"Rewrite: {text}", text)])
    assert drops.reasons == {guards.LEAKAGE: 1}
    assert drops.rows[0][2] == "100% of 4-grams (at most 50%), longest run 40 words (a leak from 8)"


def test_one_long_run_leaks_even_where_most_is_new() -> None:
    answer = " ".join([*NUMBERS[:31], *(f"new{n}" for n in range(300))]) + "."
    record = chat_record(" ".join(NUMBERS), answer)
    assert run_step(Guards(), [record])[1].reasons == {guards.LEAKAGE: 1}
    assert run_step(Guards(leak_run=32), [record])[0] == [record]
    assert run_step(Guards(leak_run=None), [record])[0] == [record]


def test_case_and_punctuation_hide_no_copy() -> None:
    shouted = ", ".join(NUMBERS).upper() + "!"
    _, drops = run_step(Guards(), [chat_record(" ".join(NUMBERS), shouted)])
    assert drops.reasons == {guards.LEAKAGE: 1}


@pytest.mark.parametrize(
    "said",
    [
        "I'm sorry, but I can't help with that.",
        "I am sorry, I cannot assist you.",
        "As an AI language model, I have no opinion.",
        "I am an AI and have no eyes.",
        "I’m just a language model.",
        "I cannot provide medical advice.",
        "Unfortunately, I am unable to complete this request.",
        "Sorry, as an AI I cannot do that.",
        "I apologize, but I won't rewrite this text.",
        '"I must decline to answer," it said.',
    ],
)
def test_refusals_are_known(said: str) -> None:
    assert refusal_in(said)
    assert run_step(Guards(), [chat_record("Why?", said)])[1].reasons == {guards.REFUSAL: 1}
    assert run_step(Guards(refusals=False), [chat_record("Why?", said)])[1].rows == []


@pytest.mark.parametrize(
    "said",
    [
        "I cannot describe the thing that stood there.",
        "I cannot, even now, think of that night without dread; no help came.",
        "Unfortunately, the harbour froze.",
        "I am sorry for the clerk.",
        "He wrote an essay about the language models of his day.",
        "I am an airman, and I will not land.",
        "They could not help him.",
    ],
)
def test_narrators_are_not_refusals(said: str) -> None:
    assert refusal_in(said) == ""


@pytest.mark.parametrize(
    ("answer", "cut"),
    [
        ("Paris", False),
        ("It was the end.", False),
        ('"It was," he said', False),
        ("It stood at the", True),
        ("It stood there,", True),
        ("It stood -", True),
        (" ".join(NUMBERS) + " and stopped here now ok x", True),
        ("- one\n- " + " ".join(NUMBERS) + " item", False),
        ("```\ncode\n```", False),
        ("Sum: 42", False),
    ],
)
def test_cut_off_answers(answer: str, cut: bool) -> None:
    assert is_cut_off(answer) is cut
    reasons = run_step(Guards(), [chat_record("Why?", answer)])[1].reasons
    assert reasons == ({guards.CUT_OFF: 1} if cut else {})


def test_length_and_emptiness() -> None:
    records = [
        chat_record("Why?", answer, line=n)
        for n, answer in enumerate(["", "  \n", "One.", "One two.", "One two three four."], 1)
    ]
    out, drops = run_step(Guards(min_words=2, max_words=3), records)
    assert [record.origin for record in out] == ["chats.jsonl:4"]
    assert drops.reasons == {guards.EMPTY: 2, guards.TOO_SHORT: 1, guards.TOO_LONG: 1}
    assert run_step(Guards(), [chat_record("No answer yet?")])[1].reasons == {guards.EMPTY: 1}


def test_other_kinds_pass() -> None:
    record = Record("preference", {"chosen": "", "rejected": ""}, "p.jsonl:1")
    assert run_step(Guards(), [record])[0] == [record]


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"max_overlap": 1.5}, "guards.max_overlap"),
        ({"ngram": 0}, "guards.ngram"),
        ({"min_words": 9, "max_words": 3}, "guards.max_words=3 is below"),
    ],
)
def test_wrong_values_are_refused_by_key(wrong: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(says)):
        Guards(**wrong)  # type: ignore[arg-type]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(st.text(max_size=80), max_size=4), max_size=6))
def test_in_is_kept_plus_dropped_for_any_chats(chats: list[list[str]]) -> None:
    records = [chat_record(*turns, line=n) for n, turns in enumerate(chats, 1)]
    out, _ = run_step(Guards(), records)
    assert all(record in records for record in out)
