"""From a row as it was read to a checked record, whatever kind of data it is.

{"text": str}                                             text
one of the shapes of data/shapes.py                       chat, tool turns kept
{... "chosen", "rejected"}                                preference, passed through as read
{... "label" or "kto_tag": bool}                          kto, passed through as read

Chats are written as messages, whatever their shape was: calls are the `tool_calls` of an
assistant's turn, and what came back are turns of the role `tool`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from graftlab.data.check import problems_in
from graftlab.data.decoding import decoded
from graftlab.data.keys import Unread, without
from graftlab.data.preferences import LABELS, SIDES
from graftlab.data.problems import RowProblem, kind_of
from graftlab.data.shapes import parse_row
from graftlab.errors import did_you_mean
from graftlab.recipes.record import Record

_TURNS = ("system", "user", "assistant")
_PASSED = (
    *("messages", "conversations", "prompt", "system", "tools", "instruction", "input", "output"),
    *("completion", "chosen", "rejected", "label", "kto_tag", "system_prompt", "response_format"),
)
"""Keys of preference and KTO rows that are kept."""

_SHAPED = frozenset({"messages", "conversations", "instruction", *SIDES, *LABELS})
"""Keys beside which `text` repeats what a row says."""


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
    if isinstance(row, dict) and "text" in row and not row.keys() & _SHAPED:
        _check_keys(row, {"text"}, metadata)
        return "text", {"text": _text("text", row["text"])}
    parsed = parse_row(row)
    problems = [
        *problems_in(parsed.messages, tools=parsed.tools, first=parsed.first),
        *(problems_in(parsed.rejected, first=parsed.first) if parsed.rejected else []),
    ]
    if problems:
        raise RowProblem(*dict.fromkeys(problems))
    metadata |= parsed.metadata
    if parsed.rejected or parsed.desirable is not None:
        kind = "preference" if parsed.rejected else "kto"
        return kind, {key: row[key] for key in _PASSED if key in row}
    body: dict[str, Any] = {"messages": [message.as_row() for message in parsed.messages]}
    return "chat", body | ({"tools": list(parsed.tools)} if parsed.tools else {})


def _check_keys(row: dict[str, Any], read: Collection[str], metadata: set[str]) -> None:
    """Raise RowProblem for keys that would be lost."""
    unread = Unread()
    unread.row(row, read, None)
    if problems := unread.problems():
        raise RowProblem(*problems)
    metadata |= unread.metadata


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise RowProblem(f"{name} must be text, this is {kind_of(value)}")
    if not value.strip():
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
