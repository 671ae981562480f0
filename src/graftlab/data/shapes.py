"""The shapes a row may have, recognised one by one, and what each becomes.

[{"role": ..., "content": ...}, ...]                              messages, bare
{"messages": [...], "tools"?: [...], "response_format"?: {...}}   messages
{"conversations": [{"from": ..., "value": ...}], "system"?, ...}  ShareGPT
{"instruction": ..., "input"?: ..., "output": ..., "system"?}     Alpaca

`tools` may stand in the system turn as well, and `response_format` in the turn that asks for it;
that of a row belongs to the last question.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

from graftlab.data.keys import Unread, is_blank, without
from graftlab.data.turns import (
    RowProblem,
    kind_of,
    read_format,
    read_tools,
    read_turns,
)
from graftlab.types import Message

ACCEPTED = (
    '[{"role","content"}, ...], {"messages": [...]}, {"conversations": [{"from","value"}]} '
    'or {"instruction","input","output"}'
)
_TURNS = ("messages", "conversations")
_ALPACA = ("instruction", "input", "output")
ROW_KEYS = frozenset({"system", "system_prompt", "tools", "response_format"})
"""Keys that are read in a row of any shape, beside those of its turns."""


@dataclass(frozen=True, slots=True)
class Parsed:
    """A row whose shape was recognised; roles are not yet checked."""

    messages: tuple[Message, ...]
    tools: tuple[dict[str, Any], ...]
    shape: str
    first: int = 1
    """Number of the first message among the row's own turns; 0 for a `system` key."""
    metadata: frozenset[str] = frozenset()
    """Keys that say something about the row and are not read."""


def parse_row(row: Any, *, ignore: Collection[str] = ()) -> Parsed:
    """Recognise the row's shape and read it; keys in `ignore` are as if they were not there.

    Raises RowProblem naming what was seen instead, and every key that would be lost.
    """
    if ignore:
        row = without(row, ignore)
    if isinstance(row, list):
        return _parsed({}, row, "messages (bare array)", frozenset())
    if not isinstance(row, dict):
        raise RowProblem(f"a row must be an object or an array, this is {kind_of(row)}")
    refuse_preferences(row)
    if (key := turns_key(row)) is not None:
        shape = "messages" if key == "messages" else "ShareGPT"
        return _parsed(row, row[key], shape, frozenset({key}))
    if "instruction" in row and "output" in row:
        return _parsed(row, _alpaca_turns(row), "Alpaca", frozenset(_ALPACA))
    keys = ", ".join(map(str, list(row)[:8])) or "none"
    raise RowProblem(f"unknown shape with keys {keys}; a row is {ACCEPTED}")


def turns_key(row: dict[str, Any]) -> str | None:
    """The key under which the turns stand. Raises RowProblem for two of them."""
    there = [key for key in _TURNS if key in row]
    if len(there) > 1:
        there = [key for key in there if not is_blank(row[key])] or there[:1]
    if len(there) > 1:
        raise RowProblem(
            "both `messages` and `conversations`: nothing says which is meant; remove one, or pass "
            "over it with data.ignore_keys (sources.NAME.ignore_keys for prepare)"
        )
    return there[0] if there else None


def refuse_preferences(row: dict[str, Any]) -> None:
    """Raise RowProblem for a row that compares or judges answers."""
    label = row.get("label", row.get("kto_tag"))
    if not is_blank(row.get("chosen")) or not is_blank(row.get("rejected")):
        seen = "chosen and rejected answers"
    elif isinstance(label, int) and label in (0, 1):  # a boolean is one
        seen = "a good-or-bad label"
    else:
        return
    raise RowProblem(
        f"preference data ({seen}): it needs a preference objective, which is not there yet, not "
        "supervised fine-tuning; to train on its good answers, write those out as messages"
    )


def _parsed(row: dict[str, Any], turns: Any, shape: str, own: frozenset[str]) -> Parsed:
    """The row, with all that is wrong with its turns and its other keys told at once."""
    unread, problems = Unread(), []
    try:
        messages: tuple[Message, ...] | None = read_turns(turns, unread)
    except RowProblem as problem:
        messages = None
        problems.append(str(problem))
    if not row.keys() <= own | ROW_KEYS:
        texts = None if messages is None else [message.content for message in messages]
        if messages is not None and shape == "Alpaca":
            texts = [*texts, *(row[key] for key in _ALPACA if row.get(key))]  # type: ignore[misc]
        unread.row(row, own | ROW_KEYS, texts)
    problems += unread.problems()
    if messages is None or problems:
        raise RowProblem(*problems)
    tools = row_tools(row, turns)
    messages, first = _with_system(row, messages)
    messages = _with_format(row, messages)
    return Parsed(messages, tools, shape, first, frozenset(unread.metadata))


def _alpaca_turns(row: dict[str, Any]) -> list[dict[str, Any]]:
    parts = {key: row.get(key) for key in _ALPACA}
    parts["input"] = parts["input"] or ""
    for key, value in parts.items():
        if not isinstance(value, str):
            raise RowProblem(f"{key} must be text, this is {kind_of(value)}")
    question = "\n\n".join(str(parts[key]) for key in ("instruction", "input") if parts[key])
    return [
        {"role": "user", "content": question},
        {"role": "assistant", "content": parts["output"]},
    ]


def system_of(row: dict[str, Any]) -> str | None:
    """The system prompt of a row, under either name; None where there is none."""
    found: dict[str, str] = {}
    for key in ("system", "system_prompt"):
        value = row.get(key)
        if value is None:
            continue
        if not isinstance(value, str):
            raise RowProblem(f"{key} must be text, this is {kind_of(value)}")
        if value.strip():
            found[key] = value
    if len(set(found.values())) > 1:
        raise RowProblem("two system prompts: `system` and `system_prompt` differ")
    return next(iter(found.values()), None)


def _with_system(
    row: dict[str, Any], messages: tuple[Message, ...]
) -> tuple[tuple[Message, ...], int]:
    """The messages with a row-level system prompt as their system turn, and the first's number.

    An empty system turn is none, as an empty key is.
    """
    first = 1
    if messages and _says_nothing(messages[0]):
        messages, first = messages[1:], 2
    system = system_of(row) if row else None
    if system is None:
        return messages, first
    if messages and messages[0].role == "system":
        if messages[0].content.strip() == system.strip():
            return messages, first
        raise RowProblem("two system prompts: a key of the row and a system turn differ")
    return (Message("system", system), *messages), first - 1


def row_tools(row: dict[str, Any], turns: list[Any]) -> tuple[dict[str, Any], ...]:
    """The tools of a row, which may stand in its system turn; `turns` were read already."""
    for number, turn in enumerate(turns, 1):
        if turn.get("tools") and turn.get("role", turn.get("from")) != "system":
            raise RowProblem(f"turn {number} has tools: only the row or its system turn may")
    own, first = read_tools(row), read_tools(turns[0]) if turns else ()
    if own and first and own != first:
        raise RowProblem("tools twice: those of the row and those of its system turn differ")
    return own or first


def _says_nothing(turn: Message) -> bool:
    return turn.role == "system" and not turn.content.strip() and turn.response_format is None


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
