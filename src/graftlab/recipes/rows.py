"""From a row as it was read to a checked record, whatever kind of data it is.

{"text": str}                                             text
one of the shapes of data/shapes.py                       chat, tool turns kept
{... "chosen", "rejected"}                                preference, passed through as read
{... "label" or "kto_tag": bool}                          kto, passed through as read

Tool turns are written the way chat templates expect them: an assistant turn with `tool_calls`, and
turns of the role `tool` for what came back.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from graftlab.data.check import problems_in
from graftlab.data.decoding import decoded
from graftlab.data.keys import Unread, is_blank, without
from graftlab.data.shapes import ROW_KEYS, parse_row, row_tools, system_of, turns_key
from graftlab.data.turns import (
    TOOL_TURNS,
    TURN_KEYS,
    RowProblem,
    kind_of,
    role_and_content,
)
from graftlab.errors import did_you_mean
from graftlab.recipes.record import Record

_CALLS = ("function_call", "tool_call")
_TURNS = ("system", "user", "assistant")
_PASSED = (
    *("messages", "conversations", "prompt", "system", "tools", "instruction", "input", "output"),
    *("completion", "chosen", "rejected", "label", "kto_tag", "system_prompt"),
)
"""Keys of preference and KTO rows that are kept."""


def record_of(
    row: Any,
    *,
    origin: str,
    columns: Mapping[str, str] | None = None,
    ignore: Collection[str] = (),
    metadata: set[str] | None = None,
) -> Record:
    """The record that a row is. Raises RowProblem saying what is wrong with it.

    `columns` renames: field -> the row's own name for it, and all others are left behind; `ignore`
    are keys to pass over. Keys that are metadata are left behind too, and put into `metadata`.
    """
    if columns:
        row = _renamed(row, columns)
    if ignore:
        row = without(row, ignore)
    kind, body = _read(row, set() if metadata is None else metadata)
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
                return decoded(value)
            except ValueError as error:
                raise RowProblem(f"{field} is text that is not JSON ({error})") from None
        if field in ("label", "kto_tag") and value.lower() in ("true", "false"):
            return value.lower() == "true"
    return value


def _read(row: Any, metadata: set[str]) -> tuple[str, dict[str, Any]]:
    if isinstance(row, dict):
        if "chosen" in row or "rejected" in row:
            return "preference", _preference(row, metadata)
        if isinstance(row.get("label", row.get("kto_tag")), bool):
            return "kto", _kto(row, metadata)
        if "text" in row and not row.keys() & {"messages", "conversations", "instruction"}:
            _check_keys(row, {"text"}, metadata)
            return "text", {"text": _text("text", row["text"])}
    return "chat", _chat(row, metadata)


def _chat(row: Any, metadata: set[str], *, last: str = "assistant") -> dict[str, Any]:
    turns = _turns(row)
    if any(_is_tool_turn(turn) for turn in turns):
        return _with_tools(row, turns, metadata)
    parsed = parse_row(row)
    if problems := problems_in(parsed.messages, last=last, first=parsed.first):
        raise RowProblem("; ".join(problems))
    metadata |= parsed.metadata
    body: dict[str, Any] = {"messages": [message.as_dict() for message in parsed.messages]}
    return body | ({"tools": list(parsed.tools)} if parsed.tools else {})


def _check_keys(row: dict[str, Any], read: Collection[str], metadata: set[str]) -> None:
    """Raise RowProblem for keys that would be lost."""
    unread = Unread()
    unread.row(row, read, None)
    if problems := unread.problems():
        raise RowProblem(*problems)
    metadata |= unread.metadata


def _turns(row: Any) -> list[Any]:
    found = row
    if isinstance(row, dict):
        key = turns_key(row)
        found = row[key] if key is not None else None
    return found if isinstance(found, list) else []


def _is_tool_turn(turn: Any) -> bool:
    if not isinstance(turn, dict):
        return False
    return bool(turn.get("tool_calls")) or turn.get("role", turn.get("from")) in TOOL_TURNS


def _with_tools(row: Any, turns: list[Any], metadata: set[str]) -> dict[str, Any]:
    """A conversation with tool turns, which `data/check.py` does not know."""
    unread = Unread()
    if isinstance(row, dict):
        unread.row(row, _TOOL_ROW, None)
    messages = [_turn(number, turn, unread) for number, turn in enumerate(turns, 1)]
    if problems := unread.problems():
        raise RowProblem(*problems)
    metadata |= unread.metadata
    if messages[0]["role"] == "system" and not messages[0]["content"].strip():
        del messages[0]
    if isinstance(row, dict) and (system := system_of(row)):
        messages.insert(0, {"role": "system", "content": system})
    before = "start"
    for number, message in enumerate(messages, 1):
        now = "call" if message.get("tool_calls") else message["role"]
        if before not in _BEFORE[now]:
            raise RowProblem(f"turn {number} ({now}) may not follow {before}")
        before = now
    if before != "assistant":
        raise RowProblem(f"the last turn is {before}: it must be the assistant's")
    tools = row_tools(row if isinstance(row, dict) else {}, turns)
    return {"messages": messages} | ({"tools": list(tools)} if tools else {})


_TOOL_ROW = (ROW_KEYS - {"response_format"}) | {"messages", "conversations"}
_CALL_KEYS = (TURN_KEYS - {"response_format"}) | {"tool_calls"}
_RESULT_KEYS = (TURN_KEYS - {"response_format", "tools"}) | {"name", "tool_call_id"}
_BEFORE = {
    "system": ("start",),
    "user": ("start", "system", "assistant"),
    "call": ("user", "tool", "call"),
    "tool": ("call", "tool"),
    "assistant": ("user", "tool"),
}
"""Kind of turn -> what may stand before it; a call is an assistant turn with `tool_calls`."""


def _turn(number: int, turn: Any, unread: Unread) -> dict[str, Any]:
    name, content = role_and_content(number, turn)
    result = name in TOOL_TURNS and name not in _CALLS and not turn.get("tool_calls")
    read = _RESULT_KEYS if result else _CALL_KEYS
    unread.turn(f"turn {number} ({name})", turn, read, name)
    said = f"turn {number} ({name})"
    if name in _CALLS:
        return {"role": "assistant", "content": "", "tool_calls": _calls(number, content)}
    if turn.get("tool_calls"):
        calls = turn["tool_calls"]
        if not isinstance(calls, list) or not all(isinstance(call, dict) for call in calls):
            raise RowProblem(f"turn {number}: tool_calls must be an array of objects")
        text = _text(said, content or "", empty=True)
        return {"role": "assistant", "content": text, "tool_calls": calls}
    if result:
        links = {key: turn[key] for key in ("name", "tool_call_id") if not is_blank(turn.get(key))}
        return {"role": "tool", "content": _text(said, content, empty=True), **links}
    if name not in _TURNS:
        raise RowProblem(f"turn {number} has the role `{name}`")
    if name == "system":
        return {"role": name, "content": _text(said, content or "", empty=number == 1)}
    return {"role": name, "content": _text(said, content)}


def _calls(number: int, content: Any) -> list[dict[str, Any]]:
    """ShareGPT's call, JSON in a text, as templates expect it; one call or a list of them."""
    try:
        found = decoded(content) if isinstance(content, str) else content
    except ValueError as error:
        raise RowProblem(f"turn {number} is a tool call that is not JSON ({error})") from None
    calls = found if isinstance(found, list) else [found]
    if not calls or not all(isinstance(call, dict) and "name" in call for call in calls):
        raise RowProblem(f"turn {number} is a tool call without a name")
    for call in calls:
        if lost := call.keys() - {"name", "arguments"}:
            raise RowProblem(f"turn {number} is a tool call with `{min(lost)}`, which is not read")
    return [
        {"type": "function", "function": {"name": c["name"], "arguments": c.get("arguments", {})}}
        for c in calls
    ]


def _preference(row: dict[str, Any], metadata: set[str]) -> dict[str, Any]:
    _check_keys(row, _PASSED, metadata)
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


def _kto(row: dict[str, Any], metadata: set[str]) -> dict[str, Any]:
    _check_keys(row, _PASSED, metadata)
    if "completion" in row:
        _text("completion", row["completion"])
        if not row.get("prompt"):
            raise RowProblem("KTO data without a prompt")
    else:
        judged = {key: value for key, value in row.items() if key not in ("label", "kto_tag")}
        _chat(judged, metadata)
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
    if isinstance(value, dict):
        inner: Iterable[Any] = [*value, *value.values()]
    else:
        inner = value if isinstance(value, list) else ()
    return next((found for item in inner if (found := _unwritable(item))), None)


def _encodes(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
