"""The turns of a row: whose each is, what it says, and what it may carry beside."""

from __future__ import annotations

from sys import intern
from typing import Any

from graftlab.data.calls import CALL_KEYS, CALL_TURNS, RESULT_TURNS, call_turn, read_calls
from graftlab.data.decoding import decoded
from graftlab.data.keys import REASONING, SCALES, SWITCHES, WEIGHTS, Unread, brief, is_blank
from graftlab.data.problems import RowProblem, kind_of
from graftlab.files.reading import DEEPEST, TOO_DEEP, deeper_than
from graftlab.types import ROLES, Message

SHAREGPT_ROLES = {"human": "user", "gpt": "assistant", "system": "system"}
_KEYS = frozenset({"role", "from", "content", "value", "tools", "response_format"})
_KEYS_OF = {
    "assistant": _KEYS | CALL_KEYS | WEIGHTS | {*REASONING},
    "tool": _KEYS | {"name", "tool_call_id"},
}
"""Keys that are read in a turn of a role."""
_HEAVIEST = 100.0


def read_turns(turns: Any, unread: Unread) -> tuple[Message, ...]:
    """Messages; keys beside them go to `unread`. Raises RowProblem with all that is wrong."""
    if not isinstance(turns, list):
        raise RowProblem(f"the turns must be an array, this is {kind_of(turns)}")
    messages, problems = [], []
    for number, turn in enumerate(turns, 1):
        try:
            messages.append(_plain(turn) or _read_turn(number, turn, unread))
        except RowProblem as problem:
            problems.append(str(problem))
    if problems:
        raise RowProblem(*problems)
    return tuple(messages)


def _plain(turn: Any) -> Message | None:
    """The message that a turn of role and content alone is, as nearly all are."""
    if isinstance(turn, dict) and len(turn) == 2:
        role, content = turn.get("role"), turn.get("content")
        if role in ROLES and isinstance(content, str):
            return Message(intern(role), content)
    return None


def _read_turn(number: int, turn: Any, unread: Unread) -> Message:
    name, content = role_and_content(number, turn)
    calls = call_turn(f"turn {number} ({name})", content) if name in CALL_TURNS else ()
    role = "assistant" if calls else "tool" if name in RESULT_TURNS else name
    said, read = f"turn {number} ({role})", _KEYS_OF.get(role, _KEYS)
    if not turn.keys() <= read:
        unread.turn(said, turn, read)
    wanted = read_format(turn) if "response_format" in turn else None
    if wanted is not None and role in ("assistant", "tool"):
        raise RowProblem(f"{said} has a response_format: it belongs to the turn that asks")
    if role == "assistant":
        return _answer(number, turn, "" if calls else content, calls)
    if role == "tool":
        tool, link = (_link(said, key, turn.get(key)) for key in ("name", "tool_call_id"))
        return Message(role, _text(number, role, content), name=tool, tool_call_id=link)
    return Message(intern(role), _text(number, role, content), wanted)


def _answer(
    number: int, turn: dict[str, Any], content: Any, calls: tuple[dict[str, Any], ...]
) -> Message:
    said = f"turn {number} (assistant)"
    more = read_calls(said, turn)
    if calls and more:
        raise RowProblem(f"{said} is a tool call and has `tool_calls` as well: keep one")
    calls = calls or more
    text = "" if content is None and calls else _text(number, "assistant", content)
    reasoning = _reasoning(said, turn)
    if reasoning is not None and "</think>" in text:
        raise RowProblem(f"{said} has reasoning twice, in its content and beside it: keep one")
    weight = _weight(said, turn)
    return Message("assistant", text, None, calls, reasoning, weight)


def _link(said: str, key: str, value: Any) -> str | None:
    if is_blank(value):
        return None
    if not isinstance(value, str):
        raise RowProblem(f"{said}: `{key}` must be text, this is {kind_of(value)}")
    return value


def _reasoning(said: str, turn: dict[str, Any]) -> str | None:
    """What stands under any of the keys for it; None for nothing but white space."""
    found = {key: turn[key] for key in REASONING if not is_blank(turn.get(key))}
    for key, value in found.items():
        if not isinstance(value, str):
            raise RowProblem(f"{said}: `{key}` must be text, this is {kind_of(value)}")
    texts = {value for value in found.values() if value.strip()}
    if len(texts) > 1:
        raise RowProblem(f"{said} has reasoning twice, in {' and '.join(found)}: keep one")
    return next(iter(texts), None)


def _weight(said: str, turn: dict[str, Any]) -> float:
    """How strongly an answer is trained, by whichever key says so. Raises RowProblem."""
    found: dict[str, float] = {}
    for key in (*SCALES, *SWITCHES):
        if is_blank(value := turn.get(key)):
            continue
        number = float(value) if isinstance(value, int | float) and abs(value) < 1e9 else -1.0
        if not 0 <= number <= _HEAVIEST:
            raise RowProblem(
                f"{said} has `{key}`: {brief(value)}: a weight is a number from 0, which leaves "
                f"the turn out of the loss, to {_HEAVIEST:g}, or true or false"
            )
        if key in SWITCHES and number not in (0, 1):
            raise RowProblem(
                f"{said} has `{key}`: {brief(value)}: it is true or false (a number is `weight`)"
            )
        found[key] = number
    if len(set(found.values())) > 1:
        raise RowProblem(f"{said} has two weights, in {' and '.join(found)}: keep one")
    return next(iter(found.values()), 1.0)


def role_and_content(number: int, turn: Any) -> tuple[str, Any]:
    """Whose turn it is, and its content as it stands. Raises RowProblem."""
    if not isinstance(turn, dict):
        raise RowProblem(f"turn {number} must be an object, this is {kind_of(turn)}")
    role, sender = turn.get("role"), turn.get("from")
    name = sender if role is None else role
    if name is None:
        keys = ", ".join(map(str, list(turn)[:8])) or "no keys"
        raise RowProblem(f"turn {number} has no role (keys: {keys})")
    if not isinstance(name, str):
        raise RowProblem(f"turn {number}: its role must be text, this is {kind_of(name)}")
    if role is None:
        name = SHAREGPT_ROLES.get(name, name)
    elif sender is not None and sender != role and SHAREGPT_ROLES.get(str(sender)) != role:
        raise RowProblem(f"turn {number} has two roles, in `role` and in `from`: keep one")
    content, value = turn.get("content"), turn.get("value")
    if content is None:
        content = value
    elif value is not None and value != content:
        raise RowProblem(f"turn {number} ({name}) has both `content` and `value`: keep one")
    return name, content


def _text(number: int, role: str, content: Any) -> str:
    """The text of a content: itself, or its parts one behind the other, as templates do it."""
    if isinstance(content, str):
        return content
    if content is None and role in ("system", "tool"):
        return ""
    if not isinstance(content, list) or not content or isinstance(content[0], list):
        seen = kind_of(content)
        raise RowProblem(f"turn {number} ({role}): content must be text, this is {seen}")
    texts = []
    for part in content:
        if not isinstance(part, dict):
            seen = kind_of(part)
            raise RowProblem(f"turn {number} ({role}): a part of its content is {seen}, not text")
        kind, text = part.get("type", "text"), part.get("text")
        if kind not in ("text", "input_text", "output_text") or not isinstance(text, str):
            raise RowProblem(
                f"turn {number} ({role}): its content has a part of the type {kind!r:.40}: only "
                "text is trained"
            )
        if lost := [key for key in part if key not in ("type", "text") and not is_blank(part[key])]:
            raise RowProblem(
                f"turn {number} ({role}): a part of its content has `{lost[0]:.40}`, "
                "which is not read"
            )
        texts.append(text)
    return "".join(texts)


def read_tools(row: dict[str, Any]) -> tuple[dict[str, Any], ...]:
    """The `tools` of a row or a turn, which may be JSON in a text. Raises RowProblem."""
    if (tools := _unpacked("tools", row)) is None:
        return ()
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise RowProblem(f"tools must be an array of objects, this is {kind_of(tools)}")
    return tuple(tools)


def read_format(turn: dict[str, Any]) -> dict[str, Any] | None:
    """The `response_format` of a turn or a row: a JSON schema, or None. Raises RowProblem."""
    wanted = _unpacked("response_format", turn)
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


def _unpacked(key: str, holder: dict[str, Any]) -> Any:
    """The value of a key, which may be JSON in a text; None for a blank one. Raises RowProblem."""
    value = holder.get(key)
    if isinstance(value, str):
        try:
            value = decoded(value) if value.strip() else None
        except ValueError as error:
            raise RowProblem(f"{key} is a string that is not JSON ({error})") from None
    if deeper_than(value, DEEPEST):  # of a row that was no JSON, such as one of Parquet
        raise RowProblem(f"{key}: {TOO_DEEP}")
    return value
