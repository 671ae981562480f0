"""Regular expressions of JSON schemas: jsonschema's own search has no time limit.

All patterns that one text is judged by share `LIMIT` seconds.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache, partial
from typing import Any

from graftlab.text.patterns import LIMIT, is_found

_NEVER_HELD = ("unevaluatedProperties", "unevaluatedItems", "uniqueItems")
"""Keywords that llguidance refuses; jsonschema takes the square of the time on some rows for them.
"""

_deadline: ContextVar[float] = ContextVar("deadline")


@contextmanager
def limited() -> Iterator[None]:
    """Within it, the validator's patterns raise PatternProblem once they took LIMIT together."""
    token = _deadline.set(time.monotonic() + LIMIT)
    try:
        yield
    finally:
        _deadline.reset(token)


@cache
def validator_class() -> Any:
    """jsonschema's validator of draft 2020-12 with the keywords that search text replaced."""
    import jsonschema

    base = jsonschema.Draft202012Validator
    additional = base.VALIDATORS["additionalProperties"]

    def others(validator: Any, wanted: Any, instance: Any, schema: Any) -> Iterator[Any]:
        patterns = schema.get("patternProperties")
        if patterns and validator.is_type(instance, "object"):
            named = schema.get("properties", {})
            instance = {
                name: value
                for name, value in instance.items()
                if name not in named and not any(_found(p, name) for p in patterns)
            }
            schema = {}
        yield from additional(validator, wanted, instance, schema)

    replaced = {
        "pattern": _pattern,
        "patternProperties": _pattern_properties,
        "additionalProperties": others,
        **{name: partial(_refused, name) for name in _NEVER_HELD},
    }
    return jsonschema.validators.extend(base, replaced)


def _pattern(validator: Any, pattern: str, instance: Any, schema: Any) -> Iterator[Any]:
    from jsonschema.exceptions import ValidationError

    if validator.is_type(instance, "string") and not _found(pattern, instance):
        yield ValidationError(f"{instance!r} does not match {pattern!r}")


def _pattern_properties(
    validator: Any, patterns: Mapping[str, Any], instance: Any, schema: Any
) -> Iterator[Any]:
    if not validator.is_type(instance, "object"):
        return
    for pattern, inner in patterns.items():
        for name, value in instance.items():
            if _found(pattern, name):
                yield from validator.descend(value, inner, path=name, schema_path=pattern)


def _refused(name: str, validator: Any, wanted: Any, instance: Any, schema: Any) -> Iterator[Any]:
    from jsonschema.exceptions import ValidationError

    if wanted:
        yield ValidationError(f"guided generation cannot hold replies to {name}: leave it out")


def _found(pattern: str, text: str) -> bool:
    return is_found(pattern, text, seconds=_deadline.get() - time.monotonic())
