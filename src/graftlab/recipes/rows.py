"""From a row as it was read to a checked record.

{"text": str}                         text
one of the shapes of data/shapes.py   chat
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from graftlab.data.check import problems_in
from graftlab.data.decoding import decoded
from graftlab.data.keys import Unread, without
from graftlab.data.problems import RowProblem, kind_of
from graftlab.data.shapes import parse_row
from graftlab.errors import did_you_mean
from graftlab.recipes.record import Record

_TURNS = ("system", "user", "assistant")


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
    metadata = set() if metadata is None else metadata
    is_text = isinstance(row, dict) and "text" in row
    if is_text and not row.keys() & {"messages", "conversations", "instruction"}:
        kind, body = "text", _text(row, metadata)
    else:
        kind, body = "chat", _chat(row, metadata)
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
    """Columns hold arrays of turns as text."""
    if field not in ("messages", "conversations") or not isinstance(value, str):
        return value
    try:
        return decoded(value)
    except ValueError as error:
        raise RowProblem(f"{field} is text that is not JSON ({error})") from None


def _text(row: dict[str, Any], metadata: set[str]) -> dict[str, Any]:
    unread = Unread()
    unread.row(row, {"text"}, None)
    if problems := unread.problems():
        raise RowProblem(*problems)
    metadata |= unread.metadata
    text = row["text"]
    if not isinstance(text, str):
        raise RowProblem(f"text must be text, this is {kind_of(text)}")
    if not text.strip():
        raise RowProblem("text is empty")
    return {"text": text}


def _chat(row: Any, metadata: set[str]) -> dict[str, Any]:
    parsed = parse_row(row)
    if parsed.rejected or parsed.desirable is not None:
        raise RowProblem(
            "compared or judged answers, which prepare does not pass on: train on the file itself, "
            "with data=jsonl data.train=FILE"
        )
    if problems := problems_in(parsed.messages, first=parsed.first):
        raise RowProblem("; ".join(problems))
    metadata |= parsed.metadata
    body: dict[str, Any] = {"messages": [message.as_row() for message in parsed.messages]}
    return body | ({"tools": list(parsed.tools)} if parsed.tools else {})


def _unwritable(value: Any) -> str | None:
    """What in a body no text file can hold, or no model should see."""
    if isinstance(value, str):
        if "\0" in value:
            return "holds NUL characters: the file was damaged, or is not text"
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            return "holds half a UTF-16 pair (a broken \\ud... escape)"
        return None
    if isinstance(value, dict):
        inner: Iterable[Any] = [*value, *value.values()]
    else:
        inner = value if isinstance(value, list) else ()
    return next((found for item in inner if (found := _unwritable(item))), None)
