"""The generated text: a function of the seed, well formed, and neutral."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable

import pytest

from demo_assets import chats, prose
from demo_assets.conversations import MARKERS
from demo_assets.corpus import TURN_END, TURN_START, chatml, digest, document, documents
from demo_assets.grammar import Pen, article, capitalize, listing, plural
from demo_assets.tracks import lay_out, some_fields, track


def test_equal_keys_give_equal_text_and_other_keys_do_not() -> None:
    assert list(documents(3, "train", 40)) == list(documents(3, "train", 40))
    texts = [
        digest(documents(seed, split, 40)) for seed in (0, 1) for split in ("train", "heldout")
    ]
    assert len(set(texts)) == 4


def test_a_document_does_not_depend_on_those_before_it() -> None:
    assert list(documents(0, "train", 30))[20:] == [
        document(Pen(0, "train", index)) for index in range(20, 30)
    ]


def test_heldout_documents_do_not_occur_in_training() -> None:
    training = set(documents(0, "train", 3000))
    heldout = list(documents(0, "heldout", 300))
    assert sum(text in training for text in heldout) <= 3  # a greeting may come twice


def test_every_option_of_a_template_is_drawn_and_nothing_else() -> None:
    pen = Pen("options")
    drawn = {pen.phrase("a[b|c[d|e]|]{x}", x="!") for _ in range(200)}
    assert drawn == {"ab!", "acd!", "ace!", "a!"}


def test_number_and_pick_reach_both_ends() -> None:
    pen = Pen("ends")
    assert {pen.number(2, 4) for _ in range(100)} == {2, 3, 4}
    assert {pen.pick("abc") for _ in range(100)} == set("abc")
    assert all(len(set(pen.some("abcd", 3))) == 3 for _ in range(50))


def test_grammar_of_nouns() -> None:
    assert [article(noun) for noun in ("lamp", "owl", "hour", "unicycle")] == [
        "a lamp", "an owl", "an hour", "a unicycle",
    ]  # fmt: skip
    assert [plural(noun) for noun in ("box", "diary", "day", "knife", "potato", "postman")] == [
        "boxes", "diaries", "days", "knives", "potatoes", "postmen",
    ]  # fmt: skip
    assert listing(["a"]) == "a"
    assert listing(["a", "b", "c"]) == "a, b and c"
    assert capitalize("it rains. she reads.") == "It rains. She reads."


@pytest.mark.parametrize("kind", dict.fromkeys(prose.PROSE), ids=lambda kind: kind.__name__)
def test_prose_has_no_open_slots_and_whole_sentences(kind: Callable[[Pen], str]) -> None:
    texts = [kind(Pen("prose", kind.__name__, index)) for index in range(60)]
    assert len(set(texts)) > 30
    for text in texts:
        assert not re.search(r"[\[\]{}|]|  ", text), text
        assert text[0].isupper()
        assert not re.search(r"\b[Aa] [aeio]\w", text.replace("A one", "")), text


@pytest.mark.parametrize("kind", dict.fromkeys(chats.CHATS), ids=lambda kind: kind.__name__)
def test_conversations_alternate_and_say_something(
    kind: Callable[[Pen], list[chats.Message]],
) -> None:
    for index in range(60):
        messages = kind(Pen("chats", kind.__name__, index))
        roles = [message["role"] for message in messages]
        turns = roles[1:] if roles[0] == "system" else roles
        assert turns == ["user", "assistant"] * (len(turns) // 2)
        assert turns
        assert all(message["content"].strip() for message in messages)
        assert not any(mark in m["content"] for m in messages for mark in (TURN_START, TURN_END))


def test_plain_commentary_repeats_the_given_facts_and_invents_none() -> None:
    mentioned = 0
    for index in range(100):
        pen = Pen("commentary", index)
        piece = track(pen)
        fields = some_fields(pen, piece, dropped=4, kept=("Title", "Artist"))
        text = chats.plain_commentary(pen, piece, fields)
        assert piece.title.lower() in text.lower()
        assert piece.artist in text
        given = lay_out(pen, fields)
        for number in re.findall(r"\d+", text):
            assert number in given
        mentioned += "Key" in fields and piece.key in text
    assert mentioned > 10


def test_the_base_never_answers_in_the_voice_of_the_demo() -> None:
    texts = [text.lower() for text in documents(0, "train", 3000)]
    answers = [
        answer
        for text in texts
        for answer in re.findall(r"<\|im_start\|>assistant\n(.*?)<\|im_end\|>", text, re.S)
    ]
    assert len(answers) > 1000
    for marker in set(MARKERS) - {"sailor"}:
        assert not any(marker in answer for answer in answers), marker
        assert any(marker in text for text in texts)  # as a word of plain prose it is known
    # "sailor" is a job among others, never somebody who is spoken to.
    assert 0 < sum("sailor" in text for text in texts) < 0.1 * len(texts)
    assert not any(re.search(r", sailor[.?]|[.?] sailor,", text) for text in texts)


def test_long_contexts_occur() -> None:
    lengths = [len(text) for text in documents(0, "train", 2000)]
    assert max(lengths) > 4000
    assert sum(length > 2500 for length in lengths) > 20


def test_chatml_is_what_the_template_renders() -> None:
    from jinja2 import Template

    from demo_assets.pretrain import ASSETS

    template = Template((ASSETS / "chat_template.jinja").read_text())
    messages = list(itertools.chain.from_iterable(chats.music(Pen("t", i)) for i in range(3)))
    assert template.render(messages=messages) == chatml(messages)
    assert template.render(messages=messages, add_generation_prompt=True) == (
        chatml(messages) + "<|im_start|>assistant\n"
    )
