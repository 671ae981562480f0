"""The turns of a row: whose each is, what it says, and what it may carry beside."""

from __future__ import annotations

from sys import intern
from typing import Any

from graftlab.data.decoding import decoded
from graftlab.data.keys import Unread, is_blank
from graftlab.errors import listed
from graftlab.files.reading import DEEPEST, TOO_DEEP, deeper_than
from graftlab.types import ROLES, Message

SHAREGPT_ROLES = {"human": "user", "gpt": "assistant", "system": "system"}
TOOL_TURNS = ("function_call", "observation", "tool", "function", "tool_call", "tool_response")
TURN_KEYS = frozenset({"role", "from", "content", "value", "tools", "response_format"})
_SHOWN = 5


class RowProblem(Exception):
    """Why a row cannot become a conversation; caught in `source.py`, shown with file and line."""

    def __init__(self, *problems: str) -> None:
        """The first few are told in full."""
        super().__init__(listed(problems, _SHOWN, "; "))


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
    role, content = role_and_content(number, turn)
    if role in TOOL_TURNS or turn.get("tool_calls") or turn.get("function_call"):
        raise RowProblem(
            f"turn {number} is a tool turn ({role}): tool calls and their results are not trained; "
            "leave such rows out, or write the call into the assistant's content"
        )
    if not turn.keys() <= TURN_KEYS:
        unread.turn(f"turn {number} ({role})", turn, TURN_KEYS, role)
    if not isinstance(content, str):
        content = _joined(number, role, content)
    wanted = read_format(turn) if "response_format" in turn else None
    if wanted is not None and role == "assistant":
        raise RowProblem(
            f"turn {number} (assistant) has a response_format: it belongs to the turn that asks"
        )
    return Message(intern(role), content, wanted)


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


def _joined(number: int, role: str, content: Any) -> str:
    """The text of a content that is no text: of parts, one behind the other as templates do it."""
    if content is None and role == "system":
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


def kind_of(value: Any) -> str:
    names = {dict: "an object", list: "an array", str: "a string", bool: "a boolean"}
    if value is None:
        return "null"
    return names.get(type(value), "a number")
