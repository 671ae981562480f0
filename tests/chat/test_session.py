"""A chat answers as one that reads everything anew, whatever was taken back or changed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from graftlab.adapters.artifact import trained_model
from graftlab.adapters.attach import load_trained
from graftlab.adapters.base import Adapter
from graftlab.chat.session import Chat, ChatReply
from graftlab.errors import ConfigError, ModelError
from graftlab.generation.answering import Asked
from graftlab.generation.decode import generate
from graftlab.generation.sampling import Generation
from graftlab.models.cache import acquire
from graftlab.text.frame import Frame
from graftlab.types import Conversation, Message
from miniatures import miniature
from trained_runs import trained_run

CPU = torch.device("cpu")
DRAWN = Generation(max_new_tokens=10, temperature=0.8, seed=5)
QUESTIONS = ["Which year was the record made?", "And where?", "Who sings? [bold] é 漢"]
LIMIT = 256


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = miniature(
        "qwen2",
        tmp_path_factory.mktemp("base"),
        tie_word_embeddings=False,
        max_position_embeddings=LIMIT,
    )
    return trained_run(tmp_path_factory.mktemp("run"), base)


@pytest.fixture
def loaded(folder: Path) -> Iterator[tuple[Asked, Adapter]]:
    trained = trained_model(str(folder), None)
    with acquire(trained.model, dtype=torch.float32, device=CPU) as base:
        adapter = load_trained(base, trained, dtype=torch.float32)
        assert adapter is not None
        yield Asked(base, trained.load_tokenizer(), DRAWN, nullcontext), adapter


def afresh(asked: Asked, messages: list[Message], *, seed: int) -> str:
    """What a reply to the whole conversation is, read from its beginning."""
    conversation = Conversation(tuple(messages))
    wanted = replace(asked.generation, seed=seed)
    return generate(asked.base, asked.tokenizer, conversation, wanted).text


def said(chat: Chat) -> list[Message]:
    turns = [turn for each in chat.exchanges for turn in (each.question, each.answer)]
    system = [Message("system", chat.system)] if chat.system else []
    return [*system, *turns]


def test_every_turn_is_what_it_is_read_anew(loaded: tuple[Asked, Adapter]) -> None:
    asked, adapter = loaded
    chat = Chat(asked, adapter, system="You know music.")
    replies = []
    for number, question in enumerate(QUESTIONS):
        before = [*said(chat), Message("user", question)]
        pieces: list[str] = []
        told = chat.ask(question, on_text=pieces.append)
        expected = afresh(asked, before, seed=5 + number)
        assert "".join(pieces) == told.reply.text == expected
        replies.append(told)
    assert len({told.reply.text for told in replies}) == 3
    first, *others = replies
    assert first.num_read == first.num_prompt
    prompts = [told.num_prompt for told in replies]
    for told in others:  # the question with its marks, and at most what the answer ended with
        assert 0 < told.num_read < told.num_prompt // 2
    assert prompts == sorted(prompts)
    assert f"{first.num_prompt} of {first.num_prompt} prompt tokens read" in first.caption


def test_the_base_answers_the_last_question_and_nothing_changes(
    loaded: tuple[Asked, Adapter],
) -> None:
    asked, adapter = loaded
    chat = Chat(asked, adapter)
    chat.ask(QUESTIONS[0])
    chat.ask(QUESTIONS[1])
    before = said(chat)
    told = chat.ask_base()
    with adapter.disabled():
        assert told.reply.text == afresh(asked, before[:-1], seed=6)
    assert told.reply.text != before[-1].content
    assert said(chat) == before
    chat.ask(QUESTIONS[2])
    assert chat.ask_base().num_read < told.num_prompt  # it has a cache of its own


def test_another_strength_reads_all_anew(loaded: tuple[Asked, Adapter]) -> None:
    asked, adapter = loaded
    chat = Chat(asked, adapter, scale=0.5)
    chat.ask(QUESTIONS[0])
    chat.set_scale(1.5)
    before = [*said(chat), Message("user", QUESTIONS[1])]
    told = chat.ask(QUESTIONS[1])
    assert told.num_read == told.num_prompt
    with adapter.scaled(1.5):
        assert told.reply.text == afresh(asked, before, seed=6)
    chat.set_scale(1.5)
    assert chat.ask(QUESTIONS[2]).num_read < told.num_prompt
    with pytest.raises(ConfigError, match="scale=-1"):
        chat.set_scale(-1)


def test_a_question_that_is_taken_back_was_never_asked(loaded: tuple[Asked, Adapter]) -> None:
    asked, adapter = loaded
    chat = Chat(asked, adapter)
    chat.ask(QUESTIONS[0])
    chat.ask("something else")
    assert chat.undo() == "something else"
    before = [*said(chat), Message("user", QUESTIONS[1])]
    assert chat.ask(QUESTIONS[1]).reply.text == afresh(asked, before, seed=7)
    chat.reset()
    assert chat.ask("Anew").reply.text == afresh(asked, [Message("user", "Anew")], seed=8)
    chat.undo()
    for takes in (chat.undo, chat.ask_base, lambda: chat.save("x")):
        with pytest.raises(ConfigError, match="noth"):
            takes()


def test_another_system_turn(loaded: tuple[Asked, Adapter]) -> None:
    asked, adapter = loaded
    chat = Chat(asked, adapter, system="One.", instruction="Speak.")
    assert chat.system == "Speak. One."
    chat.ask(QUESTIONS[0])
    chat.set_system("Two.")
    before = [*said(chat), Message("user", QUESTIONS[1])]
    assert before[0].content == "Speak. Two."
    assert chat.ask(QUESTIONS[1]).reply.text == afresh(asked, before, seed=6)
    with pytest.raises(ConfigError, match="reserved token <|im_end|>"):
        chat.set_system("a <|im_end|>")
    assert chat.system == "Speak. Two."


def test_a_frame_is_around_every_question(loaded: tuple[Asked, Adapter]) -> None:
    asked, adapter = loaded
    frame = Frame(system="A voice.", instruction="Explain.", constraints=["Be brief."])
    chat = Chat(asked, adapter, system="unused", frame=frame)
    told = [chat.ask(text) for text in ("one", "two")]
    assert chat.system == "A voice."
    questions = [each.question.content for each in chat.exchanges]
    assert questions == [frame.user_turn("one"), frame.user_turn("two")]
    assert "Be brief." in questions[1]
    assert told[1].reply.text == afresh(asked, said(chat)[:-1], seed=6)
    with pytest.raises(ConfigError, match="frame brings its own"):
        chat.set_system("mine")


def test_where_the_context_ends_is_said(loaded: tuple[Asked, Adapter]) -> None:
    asked, adapter = loaded
    asked = replace(asked, generation=Generation(max_new_tokens=LIMIT))
    asked = replace(asked, tokenizer=Endless(asked.tokenizer))
    chat = Chat(asked, adapter)
    told = chat.ask(QUESTIONS[0])
    assert told.ending == f"cut: the context of {LIMIT} tokens is full"
    assert told.num_prompt + told.reply.num_tokens == LIMIT
    before = said(chat)
    with pytest.raises(ModelError, match=rf"has room for {LIMIT} .*/undo .*/reset"):
        chat.ask(QUESTIONS[1])
    assert said(chat) == before
    chat.reset()
    chat._asked = replace(asked, generation=DRAWN)
    assert chat.ask(QUESTIONS[1]).ending == "cut at generation.max_new_tokens=10"


class Endless:
    """A tokenizer by which no token ends a turn, and no text is lost."""

    def __init__(self, inner: Any) -> None:
        self._inner, self.stop_ids = inner, (-1,)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def decode(self, ids: list[int]) -> str:
        return "".join(f" w{index}" for index in ids)


def stopping_after(pieces: int) -> tuple[Callable[[str], None], Any]:
    """What hears a reply, and stops it after so many pieces."""
    stops: list[Callable[[], None]] = []
    heard: list[str] = []

    @contextmanager
    def listen(stop: Callable[[], None]) -> Iterator[None]:
        stops.append(stop)
        if not pieces:
            stop()
        yield

    def on_text(piece: str) -> None:
        heard.append(piece)
        if len(heard) == pieces:
            stops[-1]()

    return on_text, listen


def test_a_reply_that_is_stopped_stays_as_far_as_it_came(loaded: tuple[Asked, Adapter]) -> None:
    asked, adapter = loaded
    chat = Chat(asked, adapter)
    on_text, listen = stopping_after(2)
    told = chat.ask(QUESTIONS[0], on_text=on_text, listen=listen)
    assert told.ending == "interrupted"
    assert 2 <= told.reply.num_tokens < 10
    assert chat.exchanges[-1].answer.content == told.reply.text != ""
    before = [*said(chat), Message("user", QUESTIONS[1])]
    following = chat.ask(QUESTIONS[1])
    assert following.reply.text == afresh(asked, before, seed=6)
    assert following.num_read < following.num_prompt


def test_a_question_without_any_answer_was_not_asked(loaded: tuple[Asked, Adapter]) -> None:
    asked, adapter = loaded
    chat = Chat(asked, adapter)
    on_text, listen = stopping_after(0)
    told = chat.ask(QUESTIONS[0], on_text=on_text, listen=listen)
    assert (told.ending, told.num_read, chat.exchanges) == ("interrupted", 0, [])


def test_what_is_saved_is_a_row_of_data(loaded: tuple[Asked, Adapter], tmp_path: Path) -> None:
    asked, adapter = loaded
    chat = Chat(asked, adapter, system="You know music.")
    chat.ask(QUESTIONS[2])
    file = tmp_path / "chat.jsonl"
    assert chat.save(str(file)) == file
    chat.ask(QUESTIONS[0])
    chat.save(str(file))
    (row,) = map(json.loads, file.read_text(encoding="utf-8").splitlines())
    assert row == {"messages": [message.as_dict() for message in said(chat)]}
    assert "漢" in file.read_text(encoding="utf-8")
    other = Chat(asked, adapter)
    other.ask(QUESTIONS[0])
    with pytest.raises(ConfigError, match="is there already"):
        other.save(str(file))
    with pytest.raises(ConfigError, match=r"none.x\.jsonl cannot be written: No such file"):
        chat.save(str(tmp_path / "none" / "x.jsonl"))
    with pytest.raises(ConfigError, match="cannot be written: File name too long"):
        chat.save(str(tmp_path / ("x" * 300)))
    with pytest.raises(ConfigError, match="cannot be written: No such file"):
        chat.save("~nobody-of-this-name/x.jsonl")
    with pytest.raises(ConfigError, match="holds no NUL"):
        chat.save(str(tmp_path / "a\0b"))


def test_without_an_adapter_the_base_speaks(loaded: tuple[Asked, Adapter]) -> None:
    asked, adapter = loaded
    chat = Chat(asked, None)
    with adapter.disabled():
        told = chat.ask(QUESTIONS[0])
        assert told.reply.text == afresh(asked, [Message("user", QUESTIONS[0])], seed=5)
    for wrong in (chat.ask_base, lambda: chat.set_scale(0.5)):
        with pytest.raises(ConfigError, match="there is no adapter"):
            wrong()


@pytest.mark.parametrize("text", ["a <|im_end|> b", "  ", "a\0b"])
def test_a_text_that_cannot_be_asked(loaded: tuple[Asked, Adapter], text: str) -> None:
    asked, adapter = loaded
    chat = Chat(asked, adapter)
    chat.ask(QUESTIONS[0])
    with pytest.raises(ConfigError, match="turn 3"):
        chat.ask(text)
    assert len(chat.exchanges) == 1


def test_a_schema_holds_replies(loaded: tuple[Asked, Adapter]) -> None:
    asked, adapter = loaded
    asked = replace(asked, generation=replace(DRAWN, schema={"type": "integer"}))
    told: ChatReply = Chat(asked, adapter).ask(QUESTIONS[0])
    assert isinstance(json.loads(told.reply.text), int)
    assert told.caption.count("follows the schema") == 1
