"""A persona frame holds the prompt once, unharmed, and says what is wrong with its file."""

from __future__ import annotations

from pathlib import Path

import pytest

from graftlab.errors import ConfigError
from graftlab.text.frame import SHIPPED, Frame, load_frame
from graftlab.types import Conversation, Message

PROMPTS = ["the stock market", "{input}", "{0} {x!r} {{}} %s $HOME", "a \"b\", c='d'\n(e) {", "\\n"]


def ask(*turns: tuple[str, str]) -> Conversation:
    return Conversation(tuple(Message(role, text) for role, text in turns), "file.jsonl", 3)


def test_every_shipped_frame_loads_by_name() -> None:
    names = [file.stem for file in SHIPPED.glob("*.yaml")]
    assert "systems-theologian" in names
    for name in names:
        assert load_frame(name) == load_frame(str(SHIPPED / f"{name}.yaml"))


@pytest.mark.parametrize("prompt", PROMPTS)
def test_the_prompt_goes_in_exactly_once_as_it_is(prompt: str) -> None:
    frame = load_frame("systems-theologian")
    bare = frame.user_turn("")
    framed = frame.user_turn(prompt)
    assert len(framed) == len(bare) + len(prompt)
    assert framed.endswith(f"[INPUT]:\n{prompt}")
    assert framed.startswith("[INSTRUCTION]:\nExplain")
    assert framed.count("\n- ") == len(frame.constraints) > 0


def test_the_frame_replaces_the_system_turn_and_frames_the_last_user_turn() -> None:
    frame = Frame(system="You are stone.", instruction="Weigh it.", input="<{input}>")
    turns = ask(("system", "Be nice."), ("user", "one"), ("assistant", "1"), ("user", "two"))
    framed = frame.apply(turns)
    assert [message.role for message in framed.messages] == ["system", "user", "assistant", "user"]
    assert [message.content for message in framed.messages] == [
        "You are stone.",
        "one",
        "1",
        "Weigh it.\n\n<two>",
    ]
    assert framed.where == turns.where


def test_a_frame_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("system: Ü\ninstruction: Do it.\nconstraints: [fast, well]\n", encoding="utf-8")
    assert load_frame(str(file)).user_turn("x") == "Do it.\n- fast\n- well\n\n[INPUT]:\nx"


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        ("sytem: a\ninstruction: b\n", "Did you mean `system`"),
        ("system: a\n", "instruction missing"),
        ("{}", "system and instruction missing"),
        ("system: a\ninstruction: b\ninput: no slot\n", "exactly once"),
        ("system: a\ninstruction: b\ninput: '{input} {input}'\n", "not 2 times"),
        ("system: 7\ninstruction: b\n", "system must be"),
        ("system: a\ninstruction: ''\n", "instruction must be"),
        ("system: a\ninstruction: b\nconstraints: one\n", "list of texts"),
        ("system: a\ninstruction: b\nconstraints: [1]\n", "list of texts"),
        ("- a\n- b\n", "mapping"),
        ("system: [a\n", "cannot be read as YAML"),
    ],
)
def test_a_bad_file_is_named_with_the_fix(tmp_path: Path, content: str, wanted: str) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError) as error:
        load_frame(str(file))
    assert str(file) in str(error.value)
    assert wanted in str(error.value)


def test_an_unknown_name_lists_the_shipped_ones() -> None:
    with pytest.raises(ConfigError, match=r"systems-theologian.*Did you mean"):
        load_frame("system-theologian")
