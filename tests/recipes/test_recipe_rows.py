"""Rows become records of both kinds, and what is wrong is told in words."""

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
        ({"conversations": [HUMAN, {"from": "bot", "value": "x"}]}, "role `bot`"),
        ({"conversations": [HUMAN, BACK, GPT]}, "turn 2 is tool where assistant was due"),
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, "prepare does not pass on"),
        ({"messages": CHAT, "label": True}, "data=jsonl data.train=FILE"),
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
