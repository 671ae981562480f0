"""Rows become records: every kind, tool turns kept, and what is wrong told in words."""

from __future__ import annotations

from typing import Any

import pytest

from graftlab.data.problems import RowProblem
from graftlab.recipes.record import Record
from graftlab.recipes.rows import record_of
from recipe_rows import turns

CHAT = turns("Hi", "Hello")
CALL = {"from": "function_call", "value": '{"name": "age", "arguments": {"born": 1990}}'}
BACK = {"from": "observation", "value": '{"age": 31}'}
HUMAN = {"from": "human", "value": "How old am I?"}
GPT = {"from": "gpt", "value": "31."}


def read(row: Any, columns: dict[str, str] | None = None) -> Record:
    return record_of(row, origin="f:1", columns=columns)


@pytest.mark.parametrize(
    ("row", "kind", "body"),
    [
        ({"text": "Prose."}, "text", {"text": "Prose."}),
        (CHAT, "chat", {"messages": CHAT}),
        ({"messages": CHAT, "id": 7}, "chat", {"messages": CHAT}),
        ({"instruction": "Hi", "input": "", "output": "Hello"}, "chat", {"messages": CHAT}),
        ({"messages": CHAT, "tools": [{"name": "a"}]}, "chat", None),
        (
            {"conversations": [HUMAN], "chosen": GPT, "rejected": CALL, "id": 3},
            "preference",
            {"conversations": [HUMAN], "chosen": GPT, "rejected": CALL},
        ),
        (
            {"prompt": "a", "chosen": "b", "rejected": "c"},
            "preference",
            {"prompt": "a", "chosen": "b", "rejected": "c"},
        ),
        ({"messages": CHAT, "label": True}, "kto", {"messages": CHAT, "label": True}),
        ({"prompt": "a", "completion": "b", "label": False}, "kto", None),
    ],
)
def test_every_kind(row: Any, kind: str, body: Any) -> None:
    record = read(row)
    assert record.kind == kind
    assert record.body == (row if body is None else body)
    assert record.origin == "f:1"


def test_a_response_format_is_kept_in_the_turn_that_asks() -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "A", "schema": {"type": "object"}}}
    record = read({"messages": CHAT, "response_format": wanted})
    assert record.body == {"messages": [{**CHAT[0], "response_format": wanted}, CHAT[1]]}
    assert read(record.body).body == record.body


def test_tool_turns_are_kept_as_templates_expect_them() -> None:
    record = read({"conversations": [HUMAN, CALL, BACK, GPT], "tools": '[{"name": "age"}]'})
    call = {"type": "function", "function": {"name": "age", "arguments": {"born": 1990}}}
    assert record.body == {
        "messages": [
            {"role": "user", "content": "How old am I?"},
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "content": '{"age": 31}'},
            {"role": "assistant", "content": "31."},
        ],
        "tools": [{"name": "age"}],
    }
    assert read(record.body).body == record.body  # what was written is read again unchanged


@pytest.mark.parametrize(
    ("row", "seen"),
    [
        ({"text": {"deep": 1}}, "text must be text, this is an object"),
        ({"text": " \n"}, "text is empty"),
        ({"text": "a\0b"}, "NUL characters"),
        ({"text": "a\ud83d"}, "half a UTF-16 pair"),
        ({"messages": CHAT, "tools": [{"\ud83d": 1}]}, "half a UTF-16 pair"),
        ({"messages": turns("Hi", "a\0")}, "NUL characters"),
        ({"messages": turns("Hi", {"a": 1})}, "content must be text, this is an object"),  # type: ignore[arg-type]
        ({"messages": CHAT[:1]}, "must be the assistant's"),
        ({"conversations": [HUMAN, CALL, BACK]}, "the last turn is tool"),
        ({"conversations": [HUMAN, BACK, GPT]}, "turn 2 is tool where assistant was due"),
        ({"conversations": [HUMAN, {**CALL, "value": "age(3)"}, GPT]}, "not JSON"),
        ({"conversations": [HUMAN, {**CALL, "value": "{}"}, GPT]}, "without a name"),
        ({"conversations": [HUMAN, CALL, BACK, {"from": "bot", "value": "x"}]}, "role `bot`"),
        ({"prompt": "a", "chosen": "b", "rejected": "b"}, "are the same"),
        ({"prompt": "a", "chosen": "b"}, "the rejected answer is empty"),
        ({"chosen": "b", "rejected": "c"}, "without a prompt"),
        ({"messages": CHAT[:1], "label": True}, "must be the assistant's"),
        ({"question": "a"}, "unknown shape with keys question"),
        (3, "must be an object or an array, this is a number"),
    ],
)
def test_what_is_wrong_is_said(row: Any, seen: str) -> None:
    with pytest.raises(RowProblem) as caught:
        read(row)
    assert seen in str(caught.value)


def test_columns_rename() -> None:
    row = {"question": "Hi", "reply": "Hello", "about": "Be kind.", "more": 1}
    found = read(row, {"user": "question", "assistant": "reply", "system": "about"})
    assert [m["content"] for m in found.body["messages"]] == ["Be kind.", "Hi", "Hello"]
    assert read({"body": "Prose."}, {"text": "body"}).kind == "text"
    packed = {"chat": '[{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "A"}]'}
    assert len(read(packed, {"messages": "chat"}).body["messages"]) == 2
    with pytest.raises(RowProblem, match=r"no column `answer` .*question, reply.*"):
        read({"question": "a", "reply": "b"}, {"user": "question", "assistant": "answer"})
