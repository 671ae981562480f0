"""The Markdown slice adds layout and keeps every sentence word for word."""

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


def restructured(question: str, answer: str) -> str:
    out, _ = run_step(Markdown(), [chat_record(question, answer)])
    return str(out[0].body["messages"][-1]["content"])


def test_points_under_a_heading() -> None:
    assert restructured("Tell me about the lamp.", PROSE) == (
        "## The lamp\n\nThe lamp is old.\n\n- It burns oil.\n- It hangs in the hall.\n"
        "- Nobody lights it."
    )


def test_steps_are_numbered() -> None:
    answer = "First wash the frame. Then dry it with a cloth. Finally oil the chain."
    assert restructured("How do I clean a bicycle?", answer) == (
        "## Clean a bicycle\n\n1. First wash the frame.\n2. Then dry it with a cloth.\n"
        "3. Finally oil the chain."
    )


def test_paragraphs_become_sections() -> None:
    answer = "The harbour froze. The harbour was deep.\n\nThe clerk left. A clerk writes."
    assert restructured("What happened in town, and why?", answer) == (
        "## Harbour\n\n### Froze\n\nThe harbour froze. The harbour was deep.\n\n### Clerk\n\n"
        "The clerk left. A clerk writes."
    )


def test_a_long_question_gives_no_title() -> None:
    assert structured("Is it so, or not? I ask because I wonder.", PROSE).startswith("## Lamp\n")


def test_the_rest_of_the_conversation_stays() -> None:
    record = chat_record("Hello.", "Hello to you.", "The lamp?", PROSE)
    record.body["tools"] = [{"name": "x"}]
    out, _ = run_step(Markdown(), [record])
    assert out[0].body["messages"][:-1] == record.body["messages"][:-1]
    assert out[0].body["tools"] == [{"name": "x"}]
    assert record.body["messages"][-1]["content"] == PROSE


def test_what_does_not_suit_is_dropped_with_its_reason() -> None:
    answers = [
        "- one\n- two\n- three.",
        "Too short. Really.",
        "Some **bold** one. Two. Three.",
        PROSE,
    ]
    records = [chat_record("Why?", answer, line=n) for n, answer in enumerate(answers, 1)]
    records += [
        text_record(PROSE),
        chat_record("Unanswered", line=9),
        chat_record("W?", PROSE, line=10),
    ]
    out, drops = run_step(Markdown(limit=1), records)
    assert [record.origin for record in out] == ["chats.jsonl:4"]
    assert drops.reasons == {
        markdown.ALREADY: 2, markdown.UNSUITED: 1, markdown.NOT_CHAT: 2, markdown.ENOUGH: 1,
    }  # fmt: skip


@pytest.mark.parametrize("wrong", [{"limit": 0}, {"min_sentences": 1}])
def test_wrong_values_are_refused_by_key(wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=rf"markdown\.{next(iter(wrong))}"):
        Markdown(**wrong)


WORDS = st.lists(
    st.sampled_from(["the", "lamp", "harbour", "then", "first", "clerk", "Mr.", "old", "stood"]),
    min_size=1,
)
SENTENCES = st.lists(WORDS.map(lambda words: " ".join(words).capitalize() + "."), min_size=1)


@settings(max_examples=150, deadline=None)
@given(st.lists(SENTENCES, min_size=1, max_size=4), st.text(max_size=40))
def test_no_word_is_lost_or_moved(paragraphs: list[list[str]], question: str) -> None:
    answer = "\n\n".join(" ".join(sentences) for sentences in paragraphs)
    made = structured(question, answer)
    bare = re.sub(r"(?m)^#{2,3} .*$|^- |^\d+\. (?=\S)", "", made)
    assert bare.split() == answer.split()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.text(max_size=60), max_size=3), max_size=6))
def test_in_is_kept_plus_dropped_for_any_chats(chats: list[list[str]]) -> None:
    run_step(Markdown(limit=2), [chat_record(*turns, line=n) for n, turns in enumerate(chats, 1)])
