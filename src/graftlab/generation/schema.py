"""JSON schemas that replies must follow: read, checked at the door, and compiled to grammars."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from pathlib import Path
from typing import Any

from graftlab.errors import ConfigError
from graftlab.generation.vocabulary import require_llguidance

KEY = "generation.schema"

WHITESPACE = r" |\n {0,16}"
"""Between tokens of JSON: nothing, one space, or a line end and its indentation. Any white space
whatever would let a model go on for ever without saying anything."""

_EMPTY = "Unsatisfiable"
_MAPS = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
_LISTS = ("prefixItems", "anyOf", "oneOf", "allOf")
_ONES = ("items", "additionalProperties", "not", "if", "then", "else", "contains", "propertyNames")


def read_schema(given: Any) -> dict[str, Any]:
    """The schema that `generation.schema` names: a JSON file, or the JSON itself.

    Raises ConfigError for a missing file, for what is not JSON, not a JSON schema, or a schema that
    replies cannot be held to: the message says which keyword, and where.
    """
    schema, where = _parsed(given)
    if not isinstance(schema, dict):
        raise ConfigError(
            f"{where} must be a JSON object that describes the reply, not {schema!r}."
        )
    problems = _malformed(schema)
    if not problems and (found := _not_supported(schema)):
        problems = [found]
    if problems:
        raise ConfigError(f"{where} cannot be used as a schema:\n  " + "\n  ".join(problems))
    return schema


def grammar(schema: Mapping[str, Any]) -> str:
    """The schema as llguidance reads it; an `x-guidance` key of its own may choose separators."""
    return _grammar(json.dumps(schema))


def mismatch(text: str, schema: Mapping[str, Any]) -> str | None:
    """Why `text` is not JSON of this schema, by the package jsonschema; None when it is.

    Numbers are compared as they are written, in decimal: 0.07 is a multiple of 0.01.
    """
    import jsonschema

    try:
        reply = json.loads(text, parse_float=_exact)
    except ValueError as error:
        return f"not JSON: {error}"
    judge = jsonschema.Draft202012Validator(json.loads(json.dumps(schema), parse_float=_exact))
    worst = jsonschema.exceptions.best_match(judge.iter_errors(reply))
    if worst is None:
        return None
    return f"{worst.json_path}: " + re.sub(r"Decimal\('([^']*)'\)", r"\1", worst.message)


def raise_error(matcher: Any) -> None:
    """Raise ConfigError when llguidance has given up on a schema, for one too complex."""
    if matcher.is_error():
        raise ConfigError(f"{KEY}: llguidance gives up: {matcher.get_error()}")


def words(schema: Any) -> Iterator[str]:
    """Every string that the schema itself writes into replies: names of properties, constants."""
    if isinstance(schema, Mapping):
        yield from schema.get("properties", {})
        yield from (name for name in schema.get("required", []) if isinstance(name, str))
        for value in (*schema.get("enum", []), schema.get("const")):
            yield from [value] if isinstance(value, str) else []
    for _, inner in _subschemas(schema):
        yield from words(inner)


def required_names(schema: Any) -> Iterator[str]:
    """Names of properties that some object of the schema requires."""
    if isinstance(schema, Mapping):
        yield from (name for name in schema.get("required", []) if isinstance(name, str))
    for _, inner in _subschemas(schema):
        yield from required_names(inner)


def _exact(number: str) -> Decimal | float:
    """A number with a point or an exponent as it is written; infinity for what no Decimal holds."""
    try:
        return Decimal(number)
    except InvalidOperation:
        return float(number)


def _parsed(given: Any) -> tuple[Any, str]:
    """The JSON, and how messages name it."""
    if isinstance(given, Mapping):
        return dict(given), KEY
    text, where = str(given).strip(), KEY
    if not text.startswith(("{", "[")):
        path = Path(text).expanduser()
        where = f"{KEY}={text}"
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not UTF-8 text"
            raise ConfigError(
                f"{where} cannot be read: {reason}. Give a JSON schema file, or the schema itself "
                f'as JSON: {KEY}=\'{{"type": "object", ...}}\'.'
            ) from None
    try:
        return json.loads(text), where
    except ValueError as error:
        raise ConfigError(f"{where} is not JSON: {error}.") from None


def _malformed(schema: Mapping[str, Any]) -> list[str]:
    """What the meta-schema of draft 2020-12 says against it, each with its place."""
    try:
        import jsonschema
    except ImportError as error:
        raise ConfigError(
            f"{KEY} needs the package jsonschema: pip install 'graftlab[guided]'."
        ) from error
    judge = jsonschema.Draft202012Validator(jsonschema.Draft202012Validator.META_SCHEMA)
    found = sorted(judge.iter_errors(schema), key=lambda error: list(map(str, error.path)))
    return [f"at {_pointer(error.path)}: {error.message}" for error in found]


def _not_supported(schema: Mapping[str, Any]) -> str | None:
    """The first thing that llguidance cannot hold a reply to, with its place; None when all is."""
    if message := _refusal(schema):
        place, innermost = _blame(schema, schema, message)
        return f"at {_pointer(place)}, replies cannot be held to it by llguidance: {innermost}"
    for path, inner in _walk(schema):
        least = inner.get("minProperties", 0)
        listed = set(inner.get("required", []))
        if isinstance(least, int) and least > max(1, len(listed)):
            return (
                f"at {_pointer(path)}: minProperties={least} counts properties of free names, "
                "which may come twice in a reply. Name them in `required`."
            )
    return None


def _blame(root: Mapping[str, Any], schema: Any, message: str) -> tuple[list[str], str]:
    """Path and message of the innermost part of `schema` that is refused for the same reason.

    What cannot be satisfied says so of the whole as well, in words about the part.
    """
    shared = {key: root[key] for key in ("$defs", "definitions") if key in root}
    for path, inner in _subschemas(schema):
        found = _refusal({**shared, **inner}) if isinstance(inner, Mapping) else ""
        if found and (found == message or found.split()[0] == message.split()[0] == _EMPTY):
            deeper, innermost = _blame(root, inner, found)
            return [*path, *deeper], innermost
    return [], message


def _refusal(schema: Mapping[str, Any]) -> str:
    """llguidance's own message against the schema; empty when there is none."""
    matcher = require_llguidance().LLMatcher
    try:
        wrong, messages = matcher.validate_grammar_with_warnings(grammar(schema))
    except ValueError as error:  # of an x-guidance key that is not one
        return str(error)
    return " ".join(str(messages[0]).split()) if wrong else ""


@lru_cache(maxsize=64)
def _grammar(schema: str) -> str:
    compiled: str = require_llguidance().LLMatcher.grammar_from_json_schema(
        schema,
        defaults={"whitespace_pattern": WHITESPACE},
        overrides={"lenient": False, "coerce_one_of": False},  # both let wrong replies through
    )
    return compiled


def _walk(schema: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(schema, Mapping):
        yield path, schema
    for step, inner in _subschemas(schema):
        yield from _walk(inner, (*path, *step))


def _subschemas(schema: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The schemas directly inside one, each with its path from there."""
    if not isinstance(schema, Mapping):
        return
    for key in _MAPS:
        if isinstance(found := schema.get(key), Mapping):
            yield from (((key, name), inner) for name, inner in found.items())
    for key in _LISTS:
        if isinstance(found := schema.get(key), list):
            yield from (((key, str(place)), inner) for place, inner in enumerate(found))
    for key in _ONES:
        if isinstance(found := schema.get(key), Mapping):
            yield (key,), found


def _pointer(path: Any) -> str:
    """A JSON pointer, or words for the whole."""
    steps = [str(step).replace("~", "~0").replace("/", "~1") for step in path]
    return "/" + "/".join(steps) if steps else "the top"
