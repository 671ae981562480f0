"""The shapes a row may have, recognised one by one, and what each becomes.

[{"role": ..., "content": ...}, ...]                              messages, bare
{"messages": [...], "tools"?: [...], "response_format"?: {...}}   messages
{"conversations": [{"from": ..., "value": ...}], "system"?, ...}  ShareGPT
{"instruction": ..., "input"?: ..., "output": ..., "system"?}     Alpaca

`tools` may stand in the system turn as well, and `response_format` in the turn that asks for it;
that of a row belongs to the last question.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from sys import intern
from typing import Any

from graftlab.types import Message

ACCEPTED = (
    '[{"role","content"}, ...], {"messages": [...]}, {"conversations": [{"from","value"}]} '
    'or {"instruction","input","output"}'
)
SHAREGPT_ROLES = {"human": "user", "gpt": "assistant", "system": "system"}
TOOL_TURNS = ("function_call", "observation", "tool", "function", "tool_call", "tool_response")


class RowProblem(Exception):
    """Why a row cannot become a conversation; caught in `source.py`, shown with file and line."""


@dataclass(frozen=True, slots=True)
class Parsed:
    """A row whose shape was recognised; roles are not yet checked."""

    messages: tuple[Message, ...]
    tools: tuple[dict[str, Any], ...]
    shape: str


def parse_row(row: Any) -> Parsed:
    """Recognise the row's shape and read it. Raises RowProblem naming what was seen instead."""
    if isinstance(row, list):
        return Parsed(_read_turns(row), _tools_of(row), "messages (bare array)")
    if not isinstance(row, dict):
        raise RowProblem(f"a row must be an object or an array, this is {kind_of(row)}")
    _refuse_preferences(row)
    for key, shape in (("messages", "messages"), ("conversations", "ShareGPT")):
        if key in row:
            messages = _with_format(row, _with_system(row, _read_turns(row[key])))
            return Parsed(messages, read_tools(row) or _tools_of(row[key]), shape)
    if "instruction" in row and "output" in row:
        messages = _with_format(row, _with_system(row, _read_alpaca(row)))
        return Parsed(messages, read_tools(row), "Alpaca")
    keys = ", ".join(map(str, list(row)[:8])) or "none"
    raise RowProblem(f"unknown shape with keys {keys}; a row is {ACCEPTED}")


def _refuse_preferences(row: dict[str, Any]) -> None:
    if "chosen" in row or "rejected" in row:
        seen = "chosen and rejected answers"
    elif isinstance(row.get("label", row.get("kto_tag")), bool):
        seen = "a good-or-bad label"
    else:
        return
    raise RowProblem(
        f"preference data ({seen}): it needs a preference objective, not supervised "
        "fine-tuning; to train on its good answers, write those out as messages"
    )


def _read_turns(turns: Any) -> tuple[Message, ...]:
    if not isinstance(turns, list):
        raise RowProblem(f"the turns must be an array, this is {kind_of(turns)}")
    return tuple(_read_turn(number, turn) for number, turn in enumerate(turns, 1))


def _read_turn(number: int, turn: Any) -> Message:
    if not isinstance(turn, dict):
        raise RowProblem(f"turn {number} must be an object, this is {kind_of(turn)}")
    name = turn.get("role", turn.get("from"))
    content = turn.get("content", turn.get("value"))
    if name is None:
        keys = ", ".join(map(str, turn)) or "no keys"
        raise RowProblem(f"turn {number} has no role (keys: {keys})")
    if name in TOOL_TURNS or turn.get("tool_calls"):
        raise RowProblem(
            f"turn {number} is a tool turn ({name}): tool calls and their results are not trained; "
            "leave such rows out, or write the call into the assistant's content"
        )
    if not isinstance(content, str):
        raise RowProblem(
            f"turn {number} ({name}): content must be text, this is {kind_of(content)}"
        )
    role = str(name) if "role" in turn else SHAREGPT_ROLES.get(name, str(name))
    wanted = read_format(turn)
    if wanted is not None and role == "assistant":
        raise RowProblem(
            f"turn {number} (assistant) has a response_format: it belongs to the turn that asks"
        )
    return Message(intern(role), content, wanted)


def _read_alpaca(row: dict[str, Any]) -> tuple[Message, ...]:
    parts = {key: row.get(key) for key in ("instruction", "input", "output")}
    parts["input"] = parts["input"] or ""
    for key, value in parts.items():
        if not isinstance(value, str):
            raise RowProblem(f"{key} must be text, this is {kind_of(value)}")
    if row.get("history"):
        raise RowProblem("Alpaca `history` is not read: write earlier turns out as messages")
    question = "\n\n".join(str(parts[key]) for key in ("instruction", "input") if parts[key])
    return (Message("user", question), Message("assistant", str(parts["output"])))


def _with_system(row: dict[str, Any], messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """A row-level `system` text becomes the system turn."""
    system = row.get("system")
    if system is None or system == "":
        return messages
    if not isinstance(system, str):
        raise RowProblem(f"system must be text, this is {kind_of(system)}")
    if messages and messages[0].role == "system":
        raise RowProblem("two system prompts: a `system` key and a system turn")
    return (Message("system", system), *messages)


def read_tools(row: dict[str, Any]) -> tuple[dict[str, Any], ...]:
    tools = row.get("tools")
    if isinstance(tools, str):
        try:
            tools = json.loads(tools) if tools.strip() else None
        except ValueError as error:
            raise RowProblem(f"tools is a string that is not JSON ({error})") from None
    if tools is None:
        return ()
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise RowProblem(f"tools must be an array of objects, this is {kind_of(tools)}")
    return tuple(tools)


def _tools_of(turns: list[Any]) -> tuple[dict[str, Any], ...]:
    """Tools that stand in the system turn; `turns` were read already."""
    for number, turn in enumerate(turns, 1):
        if turn.get("tools") and turn.get("role", turn.get("from")) != "system":
            raise RowProblem(f"turn {number} has tools: only the row or its system turn may")
    return read_tools(turns[0]) if turns else ()


def read_format(turn: dict[str, Any]) -> dict[str, Any] | None:
    """The `response_format` of a turn or a row: a JSON schema, or None. Raises RowProblem."""
    wanted = turn.get("response_format")
    if isinstance(wanted, str):
        try:
            wanted = json.loads(wanted) if wanted.strip() else None
        except ValueError as error:
            raise RowProblem(f"response_format is a string that is not JSON ({error})") from None
    if wanted is None or wanted == {"type": "text"}:
        return None
    if not isinstance(wanted, dict) or wanted.get("type") != "json_schema":
        seen = wanted.get("type") if isinstance(wanted, dict) else kind_of(wanted)
        raise RowProblem(f'response_format must have the type "json_schema", this has {seen}')
    inner = wanted.get("json_schema")
    if not isinstance(inner, dict) or not isinstance(inner.get("schema"), dict):
        raise RowProblem(
            'response_format needs "json_schema": {"name": ..., "schema": {...}} with the schema '
            "as an object"
        )
    return wanted


def _with_format(row: dict[str, Any], messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """A row-level `response_format` belongs to the last question."""
    wanted = read_format(row)
    asked = [place for place, message in enumerate(messages) if message.role == "user"]
    if wanted is None or not asked:
        return messages
    if any(message.response_format for message in messages):
        raise RowProblem("two response formats: that of the row and that of a turn")
    last = asked[-1]
    framed = replace(messages[last], response_format=wanted)
    return (*messages[:last], framed, *messages[last + 1 :])


def kind_of(value: Any) -> str:
    names = {dict: "an object", list: "an array", str: "a string", bool: "a boolean"}
    if value is None:
        return "null"
    return names.get(type(value), "a number")
