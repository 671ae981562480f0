"""From a row as it was read to a checked record, whatever kind of data it is.

{"text": str}                                             text
one of the shapes of data/shapes.py                       chat, tool turns kept
{... "chosen", "rejected"}                                preference, passed through as read
{... "label" or "kto_tag": bool}                          kto, passed through as read

Tool turns are written the way chat templates expect them: an assistant turn with `tool_calls`, and
turns of the role `tool` for what came back.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graftlab.data.check import problems_in
from graftlab.data.shapes import (
    SHAREGPT_ROLES,
    TOOL_TURNS,
    RowProblem,
    kind_of,
    parse_row,
    read_tools,
)
from graftlab.errors import did_you_mean
from graftlab.files.reading import load_json
from graftlab.recipes.record import Record

_CALLS = ("function_call", "tool_call")
_TURNS = ("system", "user", "assistant")
_PASSED = (
    *("messages", "conversations", "prompt", "system", "tools", "instruction", "input", "output"),
    *("completion", "chosen", "rejected", "label", "kto_tag"),
)
"""Keys of preference and KTO rows that are kept; other columns are left behind."""


def record_of(row: Any, *, origin: str, columns: Mapping[str, str] | None = None) -> Record:
    """The record that a row is. Raises RowProblem saying what is wrong with it.

    `columns` renames: field -> the row's own name for it.
    """
    if columns:
        row = _renamed(row, columns)
    kind, body = _read(row)
    if found := _unwritable(body):
        raise RowProblem(found)
    return Record(kind, body, origin)


def _renamed(row: Any, columns: Mapping[str, str]) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise RowProblem(f"columns name the keys of an object, this is {kind_of(row)}")
    missing = [column for column in columns.values() if column not in row]
    if missing:
        hint = did_you_mean(missing[0], row)
        raise RowProblem(f"no column `{missing[0]}` (there is {', '.join(map(str, row))}).{hint}")
    found = {field: row[column] for field, column in columns.items()}
    if {"user", "assistant"} <= found.keys():
        turns = [{"role": role, "content": found[role]} for role in _TURNS if found.get(role)]
        rest = {field: value for field, value in found.items() if field not in _TURNS}
        return {**rest, "messages": turns}
    return {field: _unpacked(field, value) for field, value in found.items()}


def _unpacked(field: str, value: Any) -> Any:
    """Columns hold arrays of turns as text; KTO labels too."""
    if isinstance(value, str):
        if field in ("messages", "conversations"):
            try:
                return load_json(value)
            except ValueError as error:
                raise RowProblem(f"{field} is text that is not JSON ({error})") from None
        if field in ("label", "kto_tag") and value.lower() in ("true", "false"):
            return value.lower() == "true"
    return value


def _read(row: Any) -> tuple[str, dict[str, Any]]:
    if isinstance(row, dict):
        if "chosen" in row or "rejected" in row:
            return "preference", _preference(row)
        if isinstance(row.get("label", row.get("kto_tag")), bool):
            return "kto", _kto(row)
        if "text" in row and not row.keys() & {"messages", "conversations", "instruction"}:
            return "text", {"text": _text("text", row["text"])}
    return "chat", _chat(row)


def _chat(row: Any, *, last: str = "assistant") -> dict[str, Any]:
    turns = _turns(row)
    if any(_is_tool_turn(turn) for turn in turns):
        return _with_tools(row, turns)
    parsed = parse_row(row)
    if problems := problems_in(parsed.messages, last=last):
        raise RowProblem("; ".join(problems))
    body: dict[str, Any] = {"messages": [message.as_dict() for message in parsed.messages]}
    return body | ({"tools": list(parsed.tools)} if parsed.tools else {})


def _turns(row: Any) -> list[Any]:
    found = row.get("messages", row.get("conversations")) if isinstance(row, dict) else row
    return found if isinstance(found, list) else []


def _is_tool_turn(turn: Any) -> bool:
    if not isinstance(turn, dict):
        return False
    return bool(turn.get("tool_calls")) or turn.get("role", turn.get("from")) in TOOL_TURNS


def _with_tools(row: Any, turns: list[Any]) -> dict[str, Any]:
    """A conversation with tool turns, which `data/check.py` does not know."""
    messages = [_turn(number, turn) for number, turn in enumerate(turns, 1)]
    system = row.get("system") if isinstance(row, dict) else None
    if system:
        messages.insert(0, {"role": "system", "content": _text("system", system)})
    before = "start"
    for number, message in enumerate(messages, 1):
        now = "call" if message.get("tool_calls") else message["role"]
        if before not in _BEFORE[now]:
            raise RowProblem(f"turn {number} ({now}) may not follow {before}")
        before = now
    if before != "assistant":
        raise RowProblem(f"the last turn is {before}: it must be the assistant's")
    tools = read_tools(row) if isinstance(row, dict) else ()
    return {"messages": messages} | ({"tools": list(tools)} if tools else {})


_BEFORE = {
    "system": ("start",),
    "user": ("start", "system", "assistant"),
    "call": ("user", "tool", "call"),
    "tool": ("call", "tool"),
    "assistant": ("user", "tool"),
}
"""Kind of turn -> what may stand before it; a call is an assistant turn with `tool_calls`."""


def _turn(number: int, turn: Any) -> dict[str, Any]:
    if not isinstance(turn, dict):
        raise RowProblem(f"turn {number} must be an object, this is {kind_of(turn)}")
    name = turn.get("role", turn.get("from"))
    content = turn.get("content", turn.get("value"))
    if name in _CALLS:
        return {"role": "assistant", "content": "", "tool_calls": _calls(number, content)}
    if turn.get("tool_calls"):
        calls = turn["tool_calls"]
        if not isinstance(calls, list) or not all(isinstance(call, dict) for call in calls):
            raise RowProblem(f"turn {number}: tool_calls must be an array of objects")
        said = _text(f"turn {number} ({name})", content or "", empty=True)
        return {"role": "assistant", "content": said, "tool_calls": calls}
    if name in TOOL_TURNS:
        return {"role": "tool", "content": _text(f"turn {number} ({name})", content, empty=True)}
    role = SHAREGPT_ROLES.get(str(name), str(name))
    if role not in _TURNS:
        raise RowProblem(f"turn {number} has the role `{name}`")
    return {"role": role, "content": _text(f"turn {number} ({name})", content)}


def _calls(number: int, content: Any) -> list[dict[str, Any]]:
    """ShareGPT's call, JSON in a text, as templates expect it; one call or a list of them."""
    try:
        found = load_json(content) if isinstance(content, str) else content
    except ValueError as error:
        raise RowProblem(f"turn {number} is a tool call that is not JSON ({error})") from None
    calls = found if isinstance(found, list) else [found]
    if not calls or not all(isinstance(call, dict) and "name" in call for call in calls):
        raise RowProblem(f"turn {number} is a tool call without a name")
    return [
        {"type": "function", "function": {"name": c["name"], "arguments": c.get("arguments", {})}}
        for c in calls
    ]


def _preference(row: dict[str, Any]) -> dict[str, Any]:
    answers = []
    for key in ("chosen", "rejected"):
        if not row.get(key):
            raise RowProblem(f"preference data without a {key} answer")
        answers.append(_answer(key, row[key]))
    if answers[0] == answers[1]:
        raise RowProblem("the chosen and the rejected answer are the same")
    turns = isinstance(row["chosen"], list) and len(row["chosen"]) > 1
    if not turns and not any(row.get(k) for k in ("prompt", "messages", "conversations")):
        raise RowProblem("preference data without a prompt")
    return {key: row[key] for key in _PASSED if key in row}


def _answer(key: str, value: Any) -> str:
    """The text of an answer: itself, a turn's, or that of the last of several turns."""
    if isinstance(value, list):
        value = value[-1]
    if isinstance(value, dict):
        value = value.get("content", value.get("value"))
    return _text(key, value)


def _kto(row: dict[str, Any]) -> dict[str, Any]:
    if "completion" in row:
        _text("completion", row["completion"])
        if not row.get("prompt"):
            raise RowProblem("KTO data without a prompt")
    else:
        _chat({key: value for key, value in row.items() if key not in ("label", "kto_tag")})
    return {key: row[key] for key in _PASSED if key in row}


def _text(name: str, value: Any, *, empty: bool = False) -> str:
    if not isinstance(value, str):
        raise RowProblem(f"{name} must be text, this is {kind_of(value)}")
    if not empty and not value.strip():
        raise RowProblem(f"{name} is empty")
    return value


def _unwritable(value: Any) -> str | None:
    """What in a body no text file can hold, or no model should see."""
    if isinstance(value, str):
        if "\0" in value:
            return "holds NUL characters: the file was damaged, or is not text"
        half = not value.isascii() and not _encodes(value)
        return "holds half a UTF-16 pair (a broken \\ud... escape)" if half else None
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return next((found for item in inner if (found := _unwritable(item))), None)


def _encodes(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
