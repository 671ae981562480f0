"""What makes a conversation trainable: roles in order, content that is there, nothing reserved."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

from graftlab.errors import did_you_mean
from graftlab.types import ROLES, Message


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
) -> list[str]:
    """Everything that is wrong with a conversation, in words; empty when it can be trained.

    `last` is whose turn must end it: the assistant's to train on, the user's to answer.
    """
    if not messages:
        return ["the conversation has no turns"]
    problems = [*_role_problems(messages, last)]
    if found := _reserved_in(tools, reserved):
        problems.append(f"the tools {found}")
    for number, message in enumerate(messages, 1):
        name = f"turn {number} ({message.role})"
        if not message.content.strip():
            problems.append(f"{name} is empty")
        if found := _reserved_in(message.content, reserved):
            problems.append(f"{name} {found}")
        if found := _reserved_in(message.response_format, reserved):
            problems.append(f"the response_format of {name} {found}")
        if "\0" in message.content:
            problems.append(f"{name} holds NUL characters: the file was damaged, or is not text")
        if not message.content.isascii() and _lone_surrogate(message.content):
            problems.append(f"{name} holds half a UTF-16 pair (a broken \\ud... escape)")
    return problems


def _reserved_in(value: Any, reserved: re.Pattern[str] | None) -> str:
    """What is wrong with a text, or with what is shown as JSON; empty where nothing is."""
    if reserved is None or not value:
        return ""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if (found := reserved.search(text)) is None:
        return ""
    return (
        f"contains the reserved token {found.group()}, "
        "which the model would read as structure: remove or reword it"
    )


def _role_problems(messages: Sequence[Message], last: str) -> list[str]:
    problems, expected = [], "user"
    for number, message in enumerate(messages, 1):
        role = message.role
        if role not in ROLES:
            hint = did_you_mean(role, ROLES)
            return [f"turn {number} has the role `{role}`, not system, user or assistant.{hint}"]
        if role == "system":
            if number > 1:
                problems.append(f"turn {number} is a system turn: only the first may be")
            continue
        if role != expected:
            problems.append(f"turn {number} is {role} where {expected} was due: turns alternate")
        expected = "assistant" if role == "user" else "user"
    if messages[-1].role != last:
        problems.append(f"the last turn is {messages[-1].role}: it must be the {last}'s")
    return problems


def _lone_surrogate(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return True
    return False
