"""Answers in JSON and the schemas they keep to: whether they do, and how they are to be written.

Guided generation writes the properties of an object in the order of its schema, letters as
themselves (no \\u00e5), and nothing that the schema does not take. An answer in another order, or
one that a simplified schema no longer takes, trains the model against the very constraint it will
answer under.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import product
from typing import Any

from graftlab.files.reading import load_json
from graftlab.text.json_schema import grammar, malformed, mismatch, require_llguidance
from graftlab.types import Message

_SEPARATORS = ((", ", ": "), (",", ":"), (",", ": "))
_INDENTS = (None, 2, 4, 1, "\t")


def asked_answers(messages: Sequence[Message]) -> Iterator[tuple[int, int]]:
    """(place of a turn with a response format, place of the answer to it)."""
    for place, message in enumerate(messages):
        if message.response_format is None:
            continue
        later = range(place + 1, len(messages))
        given = (i for i in later if messages[i].role == "assistant" and not messages[i].tool_calls)
        if (found := next(given, None)) is not None:
            yield place, found


def schema_of(message: Message) -> dict[str, Any]:
    """The JSON schema of a turn that has a response format."""
    assert message.response_format is not None
    schema: dict[str, Any] = message.response_format["json_schema"]["schema"]
    return schema


def answer_problems(messages: Sequence[Message]) -> list[str]:
    """What keeps guided generation from ever giving the answers of a conversation, in words."""
    problems = []
    for asked, answered in asked_answers(messages):
        schema, text = schema_of(messages[asked]), messages[answered].content
        if wrong := malformed(schema):
            problems += [f"turn {asked + 1}: the schema itself is wrong: {w}" for w in wrong]
        elif reason := mismatch(text, schema):
            problems.append(
                f"turn {answered + 1}: the answer does not keep to its schema: {reason}"
            )
        elif reason := refusal(in_order(text, schema), schema):
            problems.append(f"turn {answered + 1}: guided generation cannot give it: {reason}")
    return problems


def refusal(text: str, schema: dict[str, Any]) -> str | None:
    """Why decoding constrained to the schema could not write `text`; None when it could."""
    try:
        matcher = require_llguidance().LLMatcher(_bytewise(), grammar(schema), log_level=0)
    except ValueError as error:  # of an x-guidance key that is not one
        return f"the schema cannot be held to ({error})"
    if given_up := matcher.get_error():
        return f"the schema cannot be held to ({' '.join(str(given_up).split())})"
    data = list(text.strip().encode("utf-8"))
    taken = matcher.validate_tokens(data)
    if taken < len(data):
        rest = bytes(data[taken:]).decode("utf-8", "replace")
        return (
            f"{rest[:40]!r} cannot follow {bytes(data[:taken]).decode('utf-8', 'replace')[-40:]!r}"
        )
    matcher.consume_tokens(data)
    return None if matcher.is_accepting() else "it is not whole"


def in_order(text: str, schema: dict[str, Any]) -> str:
    """The answer as guided generation would write it, in the style it is written in.

    The very text where the style is not one of json.dumps: a rewritten number or string would be
    another answer.
    """
    style = style_of(text)
    if style is None:
        return text
    core = text.strip()
    plain = {**style, "ensure_ascii": False}
    return text.replace(core, json.dumps(_ordered(json.loads(core), schema), **plain))


def style_of(text: str) -> dict[str, Any] | None:
    """Arguments of json.dumps that give `text` back; None when there are none."""
    core = text.strip()
    try:
        answer = load_json(core)
    except ValueError:
        return None
    for separators, indent, ascii_only in product(_SEPARATORS, _INDENTS, (False, True)):
        style: dict[str, Any] = {"separators": separators, "indent": indent}
        style["ensure_ascii"] = ascii_only
        if json.dumps(answer, **style) == core:
            return style
    return None


def _ordered(value: Any, schema: Any) -> Any:
    if not isinstance(schema, dict):
        return value
    if isinstance(value, list):
        return [_ordered(item, schema.get("items")) for item in value]
    if not isinstance(value, dict):
        return value
    known = schema.get("properties", {})
    names = [*(name for name in known if name in value), *(n for n in value if n not in known)]
    return {name: _ordered(value[name], known.get(name)) for name in names}


@lru_cache(maxsize=1)
def _bytewise() -> Any:
    """A vocabulary of bytes: a text is taken as far as the schema goes along."""
    return require_llguidance().LLTokenizer("byte")
