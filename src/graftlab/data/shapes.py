"""The shapes a row may have, recognised one by one, and what each becomes.

[{"role": ..., "content": ...}, ...]                              messages, bare
{"messages": [...], "tools"?: [...], "response_format"?: {...}}   messages
{"conversations": [{"from": ..., "value": ...}], "system"?, ...}  ShareGPT
{"instruction": ..., "input"?: ..., "output": ..., "system"?}     Alpaca
{... "chosen", "rejected"} and {... "label"}                      pairs and labels (preferences.py)

`tools` may stand in the system turn as well, and `response_format` in the turn that asks for it;
that of a row belongs to the last question.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

from graftlab.data.keys import Unread, is_blank, without
from graftlab.data.preferences import (
    SIDES,
    answer_turns,
    compares,
    label_of,
    pair_problems,
    prompt_turns,
    sides_of,
)
from graftlab.data.problems import RowProblem, kind_of
from graftlab.data.turns import read_format, read_tools, read_turns
from graftlab.types import Message

ACCEPTED = (
    '[{"role","content"}, ...], {"messages": [...]}, {"conversations": [{"from","value"}]}, '
    '{"instruction","input","output"}, {"prompt","chosen","rejected"} or '
    '{"prompt","completion","label"}'
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
    rejected: tuple[Message, ...] = ()
    """The other conversation of a pair."""
    desirable: bool | None = None
    """The label of a row that is judged."""


@dataclass(frozen=True, slots=True)
class _Turns:
    """The turns of a row, unread, and the keys under which they stand."""

    shape: str
    turns: list[Any]
    keys: frozenset[str]
    rejected: list[Any] | None = None
    desirable: bool | None = None
    texts: tuple[Any, ...] = ()
    """What other keys may repeat."""


def parse_row(row: Any, *, ignore: Collection[str] = (), chosen_only: bool = False) -> Parsed:
    """Recognise the row's shape and read it; keys in `ignore` are as if they were not there.

    With `chosen_only`, a pair that cannot be compared is its chosen answer, a desirable one. Raises
    RowProblem naming what was seen instead, and every key that would be lost.
    """
    if ignore:
        row = without(row, ignore)
    if isinstance(row, list):
        return _parsed({}, _Turns("messages (bare array)", row, frozenset()))
    if not isinstance(row, dict):
        raise RowProblem(f"a row must be an object or an array, this is {kind_of(row)}")
    if compares(row):
        return _parsed(row, _pair(row), chosen_only=chosen_only)
    label = label_of(row)
    found = _plain(row, judged=label is not None)
    if found is None:
        keys = ", ".join(map(str, list(row)[:8])) or "none"
        raise RowProblem(f"unknown shape with keys {keys}; a row is {ACCEPTED}")
    if label is not None:
        found = replace(
            found,
            shape=f"{found.shape}, labelled",
            keys=found.keys | {label[0]},
            desirable=label[1],
        )
    return _parsed(row, found)


def _plain(row: dict[str, Any], *, judged: bool) -> _Turns | None:
    """The turns of a row that compares nothing."""
    if (key := turns_key(row)) is not None:
        shape = "messages" if key == "messages" else "ShareGPT"
        return _Turns(shape, row[key], frozenset({key}))
    if "instruction" in row and "output" in row:
        texts = tuple(row[key] for key in _ALPACA if row.get(key))
        return _Turns("Alpaca", _alpaca_turns(row), frozenset(_ALPACA), texts=texts)
    if "prompt" in row and "completion" in row:
        if not judged:
            raise RowProblem(
                "`prompt` and `completion` without a `label` of true or false: for plain answers, "
                "write them as messages"
            )
        answer = answer_turns("completion", row["completion"])
        turns = [*prompt_turns(row["prompt"]), *answer]
        return _Turns("prompt", turns, frozenset({"prompt", "completion"}))
    return None


def _pair(row: dict[str, Any]) -> _Turns:
    """Both conversations of a row that compares answers."""
    shape, keys, prompt = _prompt_of(row)
    chosen, rejected = sides_of(row, prompt)
    if prompt is not None and chosen[: len(prompt)] != prompt:  # whole ones with a prompt beside
        if all(isinstance(row[key], str) for key in keys if key in row):
            keys = []  # read as what may be repeated
        elif prompt not in (chosen, rejected):
            raise RowProblem(f"chosen and rejected do not begin with the turns of `{keys[0]}`")
    return _Turns(f"{shape}, chosen and rejected", chosen, frozenset({*keys, *SIDES}), rejected)


def _prompt_of(row: dict[str, Any]) -> tuple[str, list[str], list[Any] | None]:
    """(shape, its keys, turns in front of the answers) of a pair; None for whole conversations."""
    if (key := turns_key(row)) is not None and not is_blank(row[key]):
        if not isinstance(row[key], list):
            raise RowProblem(f"the turns must be an array, this is {kind_of(row[key])}")
        return "messages" if key == "messages" else "ShareGPT", [key], row[key]
    if not is_blank(row.get("prompt")):
        return "prompt", ["prompt"], prompt_turns(row["prompt"])
    if not is_blank(row.get("instruction")):
        return "Alpaca", ["instruction", "input"], [_question(row)]
    return "messages", [], None


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


def _parsed(row: dict[str, Any], found: _Turns, *, chosen_only: bool = False) -> Parsed:
    """The row, with all that is wrong with its turns and its other keys told at once."""
    unread, problems = Unread(), []
    sides: list[tuple[Message, ...]] = []
    for turns in (found.turns, *([] if found.rejected is None else [found.rejected])):
        try:
            sides.append(read_turns(turns, unread))
        except RowProblem as problem:
            problems += [] if str(problem) in problems else [str(problem)]
    known = found.keys | ROW_KEYS
    if not row.keys() <= known:
        whole = [*found.texts, *(turn.content for side in sides for turn in side)]
        unread.row(row, known, None if problems else whole)
    problems += unread.problems()
    if problems:
        raise RowProblem(*problems)
    tools = row_tools(row, found.turns)
    if found.rejected is not None and row_tools(row, found.rejected) != tools:
        raise RowProblem("the tools of chosen and rejected differ")
    made = [_with_system(row, side) for side in sides]
    messages, *other = (_with_format(row, messages) for messages, _ in made)
    rejected, desirable = other[0] if other else (), found.desirable
    if rejected and (wrong := pair_problems(messages, rejected)):
        if not chosen_only:
            raise RowProblem(*wrong)
        rejected, desirable = (), True
    return Parsed(
        messages,
        tools,
        found.shape,
        made[0][1],
        frozenset(unread.metadata),
        rejected,
        desirable,
    )


def _alpaca_turns(row: dict[str, Any]) -> list[dict[str, Any]]:
    answer = row.get("output")
    if not isinstance(answer, str):
        raise RowProblem(f"output must be text, this is {kind_of(answer)}")
    return [_question(row), {"role": "assistant", "content": answer}]


def _question(row: dict[str, Any]) -> dict[str, Any]:
    parts = {"instruction": row.get("instruction"), "input": row.get("input") or ""}
    for key, value in parts.items():
        if not isinstance(value, str):
            raise RowProblem(f"{key} must be text, this is {kind_of(value)}")
    return {"role": "user", "content": "\n\n".join(str(part) for part in parts.values() if part)}


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
