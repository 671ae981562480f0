"""What makes a conversation trainable: roles in order, content that is there, nothing reserved."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from graftlab.errors import did_you_mean
from graftlab.types import ROLES, Message

_FOREIGN_ROLES = {
    **dict.fromkeys(("developer", "sys"), "system"),
    **dict.fromkeys(("human", "prompter", "customer"), "user"),
    **dict.fromkeys(("model", "gpt", "chatgpt", "bot", "ai", "bing", "bard"), "assistant"),
}
"""What other formats call the three roles."""


def reserved_pattern(reserved: Iterable[str]) -> re.Pattern[str] | None:
    """Matches any of the reserved strings, longest first; None when there are none."""
    ordered = sorted(filter(None, reserved), key=lambda token: (-len(token), token))
    return re.compile("|".join(map(re.escape, ordered))) if ordered else None


def problems_in(
    messages: Sequence[Message],
    *,
    reserved: re.Pattern[str] | None = None,
    last: str = "assistant",
    tools: Sequence[dict[str, Any]] = (),
    first: int = 1,
) -> list[str]:
    """Everything that is wrong with a conversation, in words; empty when it can be trained.

    `last` is whose turn must end it: the assistant's to train on, the user's to answer (or a tool's
    result); `first` is the number of the first message, 0 for a system prompt that is no turn.
    """
    if not messages:
        return ["the conversation has no turns"]
    problems = [*_role_problems(messages, last, first)]
    if tools:
        problems += _text_problems("the tools", _as_json(tools), reserved)
    for number, message in enumerate(messages, first):
        name = _name(number, message)
        if not message.content.strip() and not message.tool_calls and message.role != "tool":
            problems.append(f"{name} is empty")
        problems += _text_problems(name, message.content, reserved)
        for what, beside in _beside(message):
            problems += _text_problems(f"the {what} of {name}", beside, reserved)
    return problems


def _beside(message: Message) -> Iterator[tuple[str, str]]:
    """(what it is, its text) of all that templates show of a turn beside its content."""
    if message.response_format:
        yield "response_format", _as_json(message.response_format)
    if message.tool_calls:
        yield "tool_calls", _as_json(message.tool_calls)
    for what in ("reasoning", "name", "tool_call_id"):
        if found := getattr(message, what):
            yield what, found


def _name(number: int, message: Message) -> str:
    return f"turn {number} ({message.role})" if number else "the system prompt"


def _as_json(value: Any) -> str:
    """What is shown as JSON, as text; dates and bytes of Parquet have none of their own."""
    return json.dumps(value, ensure_ascii=False, default=str)


def _text_problems(name: str, text: str, reserved: re.Pattern[str] | None) -> list[str]:
    """What no model should read in a text that is shown to it."""
    problems = []
    if reserved is not None and (found := reserved.search(text)) is not None:
        problems.append(
            f"{name} contains the reserved token {found.group()}, "
            "which the model would read as structure: remove or reword it"
        )
    if "\0" in text:
        problems.append(f"{name} holds NUL characters: the file was damaged, or is not text")
    if not text.isascii() and _lone_surrogate(text):
        problems.append(f"{name} holds half a UTF-16 pair (a broken \\ud... escape)")
    return problems


_BEFORE = {
    "user": ("start", "assistant"),
    "assistant": ("user", "tool"),
    "call": ("user", "tool", "call"),
    "tool": ("call", "tool"),
}
"""Kind of turn -> what may stand before it; a call is an assistant's turn with tool calls."""
_DUE = {"start": "user", "user": "assistant", "assistant": "user", "call": "tool"}


def _role_problems(messages: Sequence[Message], last: str, first: int) -> list[str]:
    problems, before = [], "start"
    for number, message in enumerate(messages, first):
        role = message.role
        if role not in ROLES:
            meant = _FOREIGN_ROLES.get(role.strip().lower())
            hint = f" Did you mean `{meant}`?" if meant else did_you_mean(role, ROLES)
            shown = role if len(role) <= 40 else f"{role[:40]}..."
            known = "system, user, assistant or tool"
            return [f"turn {number} has the role `{shown}`, not {known}.{hint}"]
        if role == "system":
            if number > first:
                problems.append(f"turn {number} is a system turn: only the first may be")
            continue
        kind = "call" if message.tool_calls and role == "assistant" else role
        if before not in _BEFORE[kind]:
            due = _DUE.get(before, "assistant")
            why = "a result follows its call" if kind == "tool" else "turns alternate"
            problems.append(f"turn {number} is {role} where {due} was due: {why}")
        before = kind
    ends = ("user", "tool") if last == "user" else (last,)
    if messages[-1].role not in ends:
        problems.append(f"the last turn is {messages[-1].role}: it must be the {last}'s")
    return problems


def _lone_surrogate(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return True
    return False
