"""The Markdown slice shows lists that are there, word for word, and leaves the rest alone."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graftlab.errors import ConfigError
from graftlab.recipes import markdown
from graftlab.recipes.markdown import Markdown, structured
from recipe_drops import chat_record, run_step, text_record

PROSE = "The lamp is old. It burns oil. It hangs in the hall. Nobody lights it."
STEPS = "First wash the frame. Then dry it with a cloth. Finally oil the chain."
NUMBERED = "1. First wash the frame.\n2. Then dry it with a cloth.\n3. Finally oil the chain."


def test_sentences_that_count_are_a_numbered_list() -> None:
    assert structured("How do I clean a bicycle?", STEPS) == NUMBERED
    told = "There are three reasons.\n\nFirstly, it is cheap. It costs a penny.\n\nSecondly, it is "
    told += "light.\n\nLastly, it is red.\n\nSo take it."
    assert structured("Why this one?", told) == (
        "There are three reasons.\n\n1. Firstly, it is cheap. It costs a penny.\n"
        "2. Secondly, it is light.\n3. Lastly, it is red.\n\nSo take it."
    )


def test_what_is_listed_behind_a_colon_is_a_list() -> None:
    answer = "I know some. Common metals include: iron, zinc, and soft tin. All of them shine."
    assert structured("Which metals are there?", answer) == (
        "I know some. Common metals include:\n\n- iron\n- zinc\n- soft tin\n\nAll of them shine."
    )
    assert structured("What is in it?", "It has three parts: the head, the neck and the body.") == (
        "It has three parts:\n\n- the head\n- the neck\n- the body"
    )


def test_numbers_within_a_line_are_a_list() -> None:
    answer = "Do this: 1. Wash it. 2. Dry it. 3. Oil it. It will shine in 2. hand shops as well."
    assert structured("How?", answer) == (
        "Do this:\n\n1. Wash it.\n2. Dry it.\n3. Oil it.\n\nIt will shine in 2. hand shops as well."
    )
    assert structured("How?", "(1) wash it (2) dry it (3) oil it") == (
        "1. wash it\n2. dry it\n3. oil it"
    )


def test_bullets_of_another_kind_become_those_of_markdown() -> None:
    assert structured("What?", "Take:\n• oil\n• a cloth\n  ◦ soap") == (
        "Take:\n- oil\n- a cloth\n- soap"
    )


LEFT_ALONE = [
    ("Tell me about the lamp.", PROSE),
    ("What happened?", "The harbour froze. It was deep.\n\nThe clerk left. A clerk writes."),
    ("Write a story.", STEPS),
    ("Write a letter to my landlord.", STEPS),
    ("How do I ask him?", f"Dear Sir,\n\n{STEPS}\n\nSincerely,\nAnn"),
    ("What did they say?", f"Ann: {STEPS}\nBen: Yes.\nAnn: Good."),
    ("What did they say?", 'Ann: "I want three: iron, zinc, and tin."'),
    ("How is it done?", "total = sum(x) has parts: one, two, and three."),
    ("Which?", "There are two: iron and zinc."),
    ("Which title?", '"The Lamp: Oil, Light, and Darkness" is one.'),
    ("Who fought?", "There were two sides: the League of Rome, Pisa, and Genoa, and the Empire."),
    ("How does it go on?", "The sequence is: 3, 7, 11, and 15."),
    ("What then?", "He left. Then he came back. Next he slept. Finally he wrote to her."),
    ("What is it?", f"It is: iron, {'z' * 80}, and tin."),
]


@pytest.mark.parametrize(("question", "answer"), LEFT_ALONE)
def test_what_holds_no_list_or_has_a_form_of_its_own_is_left_alone(
    question: str, answer: str
) -> None:
    assert structured(question, answer) is None


def test_the_rest_of_the_conversation_stays() -> None:
    record = chat_record("Hello.", "Hello to you.", "The chain?", STEPS)
    record.body["tools"] = [{"name": "x"}]
    out, _ = run_step(Markdown(), [record])
    assert out[0].body["messages"][:-1] == record.body["messages"][:-1]
    assert out[0].body["messages"][-1]["content"] == NUMBERED
    assert out[0].body["tools"] == [{"name": "x"}]
    assert record.body["messages"][-1]["content"] == STEPS


def test_what_does_not_suit_is_dropped_with_its_reason() -> None:
    answers = ["- one\n- two\n- three.", PROSE, "Some **bold** one. Two. Three.", STEPS]
    records = [chat_record("Why?", answer, line=n) for n, answer in enumerate(answers, 1)]
    records += [
        text_record(PROSE),
        chat_record("Unanswered", line=9),
        chat_record("W?", STEPS, line=10),
    ]
    out, drops = run_step(Markdown(limit=1), records)
    assert [record.origin for record in out] == ["chats.jsonl:4"]
    assert drops.reasons == {
        markdown.ALREADY: 2, markdown.UNSUITED: 1, markdown.NOT_CHAT: 2, markdown.ENOUGH: 1,
    }  # fmt: skip


@pytest.mark.parametrize("wrong", [{"limit": 0}, {"min_items": 1}])
def test_wrong_values_are_refused_by_key(wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=rf"markdown\.{next(iter(wrong))}"):
        Markdown(**wrong)


WORDS = st.lists(
    st.sampled_from(
        [
            "the",
            "lamp",
            "harbour",
            "then",
            "first",
            "finally",
            "next",
            "1.",
            "(2)",
            "3.",
            "stood:",
            "clerk,",
            "oil,",
            "and",
            "•",
        ]
    ),
    min_size=1,
    max_size=9,
)
SENTENCES = st.lists(WORDS.map(lambda words: " ".join(words).capitalize() + "."), min_size=1)


@settings(max_examples=400, deadline=None)
@given(st.lists(SENTENCES, min_size=1, max_size=4), st.text(max_size=40))
def test_no_word_is_lost_or_moved(paragraphs: list[list[str]], question: str) -> None:
    """But for the marks of the list: numbers, bullets, and the commas and "and" between items."""

    def bare(text: str) -> list[str]:
        text = re.sub(r"\(?\b\d+[.)]|[•,.]|^- |\band\b", " ", text, flags=re.M)
        return text.lower().split()

    answer = "\n\n".join(" ".join(sentences) for sentences in paragraphs)
    made = structured(question, answer)
    assert made is None or bare(made) == bare(answer)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.text(max_size=60), max_size=3), max_size=6))
def test_in_is_kept_plus_dropped_for_any_chats(chats: list[list[str]]) -> None:
    run_step(Markdown(limit=2), [chat_record(*turns, line=n) for n, turns in enumerate(chats, 1)])
