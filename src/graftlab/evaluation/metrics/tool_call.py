"""`metrics=tool-call`: whether a reply calls the tools that the reference calls."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from graftlab.evaluation.metrics.base import MORE, Measure, Metric, lacks_reference
from graftlab.files.reading import load_json
from graftlab.registry import choice

if TYPE_CHECKING:
    from graftlab.evaluation.replies import Case, Judged
    from graftlab.generation.prompts import Prompt

MOST_STARTS = 64
"""Brackets at which JSON is looked for in one text: a loop of them would take for ever."""


@choice("tool-call")
@dataclass(kw_only=True, slots=True)
class ToolCall(Metric):
    """The same calls as in the reference, by name and arguments, in any order.

    A call is a JSON object with a name and arguments (or parameters), wherever it stands in the
    reply: models write it bare, between tags or in a code block. A reference without a call wants
    none.
    """

    def measures(self) -> dict[str, Measure]:
        return {
            "pct_right": Measure(about="replies with the same calls", better=MORE, share=True),
            "pct_name": Measure(about="replies that call the same tools", share=True),
            "pct_called": Measure(about="replies with a call at all", share=True),
        }

    def lacks(self, prompt: Prompt) -> str | None:
        return lacks_reference(prompt)

    def score(self, case: Case) -> Judged:
        said, wanted = (
            sorted(calls_in(text)) for text in (case.said.text, case.prompt.expected or "")
        )
        names = [[name for name, _ in calls] for calls in (said, wanted)]
        return {
            "pct_right": float(said == wanted),
            "pct_name": float(names[0] == names[1]),
            "pct_called": float(bool(said)),
        }


def calls_in(text: str) -> Iterator[tuple[str, str]]:
    """(name, arguments as JSON with sorted keys) of every call in a text."""
    for value in _json_values(text):
        for call in value if isinstance(value, list) else [value]:
            if (found := _call(call)) is not None:
                yield found


def _call(value: Any) -> tuple[str, str] | None:
    if isinstance(value, dict) and isinstance(value.get("function"), dict):
        value = value["function"]
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        return None
    given = value.get("arguments", value.get("parameters"))
    if isinstance(given, str):
        try:
            given = load_json(given)
        except ValueError:
            return None
    if not isinstance(given, dict):
        return None
    return value["name"], json.dumps(_plain(given), sort_keys=True)


def _plain(value: Any) -> Any:
    """1.0 as 1: how a number is written makes no other call."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _json_values(text: str) -> Iterator[Any]:
    """Every JSON object or array in a text that is in no other."""
    place = 0
    for _ in range(MOST_STARTS):
        starts = [at for at in (text.find("{", place), text.find("[", place)) if at >= 0]
        if not starts:
            return
        place = min(starts)
        end = _end(text, place)
        try:
            yield load_json(text[place:end])
            place = end
        except ValueError:
            place += 1


def _end(text: str, start: int) -> int:
    """Where the bracket at `start` is closed; the text's end where it is not."""
    depth, quoted, escaped = 0, False, False
    for place in range(start, len(text)):
        character = text[place]
        if quoted:
            quoted = escaped or character != '"'
            escaped = character == "\\" and not escaped
        elif character == '"':
            quoted = True
        elif character in "{[":
            depth += 1
        elif character in "}]":
            depth -= 1
            if depth == 0:
                return place + 1
    return len(text)
