"""The assistant mask: right for every family's template, and refused where there is none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from graftlab.text.document import Document
from graftlab.text.load import load_tokenizer
from graftlab.text.spans import MaskProblem
from graftlab.text.tokenizer import Tokenizer
from graftlab.text.turns import TurnReader
from graftlab.types import Conversation, Message
from text_tokenizers import TEMPLATES, write_tokenizer

Maker = Callable[[str], Tokenizer]
KINDS = ("chatml", "qwen2.5", "qwen3", "llama3", "gemma", "mistral")


def talk(*turns: str, system: str | None = None, **more: object) -> Conversation:
    roles = ("user", "assistant")
    messages = [Message(roles[i % 2], text) for i, text in enumerate(turns)]
    if system is not None:
        messages.insert(0, Message("system", system))
    return Conversation(tuple(messages), **more)  # type: ignore[arg-type]


TALKS = [
    talk("Hi", "A good answer!"),
    talk("One\n\ntwo", "- one\n- two\n\n- three", "And?", "Über naïve 🎵.", "End", "It ends.\n"),
    talk("Q", "\n\nIt opens with line ends.", "Again", "\nand so on"),
    talk("Same", "Same", "Same", "Same"),
]


def documents(
    tokenizer: Tokenizer, conversation: Conversation, turns: str = "all"
) -> list[Document]:
    reader = TurnReader(tokenizer, train_turns=turns)
    made = []
    for found in reader.documents(reader.drafts(conversation)):
        assert not isinstance(found, MaskProblem), found
        made += found
    return made


def trained_spans(document: Document) -> list[tuple[int, int]]:
    edges = np.flatnonzero(np.diff([False, *document.trained, False]))
    return list(pairwise(edges.tolist()))[::2]


def prompts(tokenizer: Tokenizer, conversation: Conversation) -> list[list[int]]:
    """What generation would be given for each answer."""
    messages = conversation.messages
    return [
        tokenizer.render(messages[:i], tools=conversation.tools, generation_prompt=True)
        for i, message in enumerate(messages)
        if message.role == "assistant"
    ]


def answers(conversation: Conversation) -> list[str]:
    return [m.content for m in conversation.messages if m.role == "assistant"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("conversation", TALKS)
def test_every_answer_is_trained_after_the_prompt_that_generation_sees(
    chat_tokenizer: Maker, kind: str, conversation: Conversation
) -> None:
    tokenizer = chat_tokenizer(kind)
    made = documents(tokenizer, conversation)
    spans = [(document, span) for document in made for span in trained_spans(document)]
    wanted = list(zip(prompts(tokenizer, conversation), answers(conversation), strict=True))
    assert len(spans) == len(wanted)
    for (document, (start, end)), (prompt, answer) in zip(spans, wanted, strict=True):
        ids = document.ids.tolist()
        assert ids[: len(prompt)] == prompt
        # What the template writes by itself is not trained, and yet it is the assistant's turn.
        block = tokenizer.decode(ids[len(prompt) : start], skip_special=False)
        assert block == ("<think>\n\n</think>\n\n" if kind == "qwen3" else "")
        assert ids[end - 1] == tokenizer.stop_ids[0]
        text = tokenizer.decode(ids[start : end - 1], skip_special=False)
        assert text.strip() == answer.strip()
        assert sum(document.parts) == len(ids)
        assert document.parts[2] - document.trained.sum() == (start - len(prompt))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "llama3"])
def test_ids_are_those_of_the_full_rendering(chat_tokenizer: Maker, kind: str) -> None:
    tokenizer = chat_tokenizer(kind)
    conversation = TALKS[1]  # whose ids merge across the edge after llama3's "\n\n"
    made = documents(tokenizer, conversation)
    full = tokenizer.render(conversation.messages, generation_prompt=False)
    assert made[-1].ids.tolist() == full
    assert (len(made) == 1) == (kind != "qwen3")


@pytest.mark.parametrize("scheme", ["first", "always", "never"])
@pytest.mark.parametrize("kind", ["mistral", "chatml"])
def test_vocabularies_that_put_a_space_in_front(tmp_path: Path, kind: str, scheme: str) -> None:
    folder = write_tokenizer(tmp_path, TEMPLATES[kind], metaspace=scheme)
    tokenizer = load_tokenizer(folder)
    conversation = talk("one question", "the band opens it", "and", "the good answer")
    (document,) = documents(tokenizer, conversation)
    ids = document.ids.tolist()
    assert ids == tokenizer.render(conversation.messages, generation_prompt=False)
    spans = trained_spans(document)
    for (start, end), prompt in zip(spans, prompts(tokenizer, conversation), strict=True):
        assert ids[:start] == prompt
        assert ids[end - 1] == tokenizer.stop_ids[0]
    written = "".join(tokenizer.pieces(ids[spans[0][0] : spans[0][1] - 1]))
    assert written.strip() == "the band opens it"


def test_stripped_thinking_gives_one_document_per_answer(chat_tokenizer: Maker) -> None:
    tokenizer = chat_tokenizer("qwen3")
    thinking = "<think>\nhm {}\n</think>\n\nAnswer {}"
    conversation = talk("a", thinking.format(1, 1), "b", thinking.format(2, 2))
    first, second = documents(tokenizer, conversation)
    texts = [
        tokenizer.decode(d.ids[d.trained].tolist(), skip_special=False) for d in (first, second)
    ]
    assert texts == [thinking.format(i, i) + "<|im_end|>" for i in (1, 2)]
    context = tokenizer.decode(second.ids[~second.trained].tolist())
    assert "Answer 1" in context
    assert "hm 1" not in context
    (only,) = documents(tokenizer, conversation, "last")
    assert only.ids.tolist() == second.ids.tolist()


def test_a_merge_across_the_edge_is_encoded_apart(chat_tokenizer: Maker) -> None:
    tokenizer = chat_tokenizer("chatml")
    conversation = TALKS[2]
    full = tokenizer.render(conversation.messages, generation_prompt=False)
    prompt = prompts(tokenizer, conversation)[0]
    assert full[: len(prompt)] != prompt, "the vocabulary must merge line ends for this test"
    made = documents(tokenizer, conversation)
    assert len(made) == 2
    for document in made:
        text = tokenizer.decode(document.ids.tolist(), skip_special=False)
        assert tokenizer.decode(full, skip_special=False).startswith(text)


def test_training_only_the_last_answer(chat_tokenizer: Maker) -> None:
    tokenizer = chat_tokenizer("chatml")
    (every,) = documents(tokenizer, TALKS[1])
    (last,) = documents(tokenizer, TALKS[1], "last")
    assert every.ids.tolist() == last.ids.tolist()
    assert len(trained_spans(every)) == 3
    assert trained_spans(last) == trained_spans(every)[-1:]
    assert last.parts == every.parts


@pytest.mark.parametrize("kind", ["chatml", "llama3", "mistral"])
def test_parts_follow_the_roles(chat_tokenizer: Maker, kind: str) -> None:
    tokenizer = chat_tokenizer(kind)
    system = "Keep to the year 1974."
    (bare,) = documents(tokenizer, talk("Hi", "Good answer!"))
    (document,) = documents(tokenizer, talk("Hi", "Good answer!", system=system))
    assert bare.parts[0] == 0
    assert bare.parts[2] == document.parts[2]
    assert document.parts[0] >= len(tokenizer.encode_text([system])[0])
    (more,) = documents(tokenizer, talk("Hi " * 50, "Good answer!", system=system))
    assert more.parts[0] == document.parts[0]
    assert more.parts[1] > document.parts[1]


def problem_of(tokenizer: Tokenizer, conversation: Conversation) -> str:
    with pytest.raises(MaskProblem) as caught:
        TurnReader(tokenizer).drafts(conversation)
    return str(caught.value)


def test_a_template_without_system_turns_says_so(chat_tokenizer: Maker) -> None:
    message = problem_of(chat_tokenizer("gemma"), talk("Hi", "Hello", system="Be brief."))
    assert "System role not supported" in message
    assert "first user turn" in message


def test_tools_that_the_template_hides_are_refused(chat_tokenizer: Maker) -> None:
    tools: Sequence[dict[str, object]] = ({"name": "search"},)
    message = problem_of(chat_tokenizer("llama3"), talk("Hi", "Hello", tools=tools))
    assert "tools" in message
    assert "model.template" in message


def test_response_formats_that_the_template_hides_are_refused(chat_tokenizer: Maker) -> None:
    wanted = {"type": "json_schema", "json_schema": {"schema": {"type": "object"}}}
    asked = Conversation((Message("user", "Hi", wanted), Message("assistant", "{}")))
    assert "response_format" in problem_of(chat_tokenizer("llama3"), asked)
