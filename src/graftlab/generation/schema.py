"""JSON schemas that replies must follow: read, checked at once, and compiled to grammars."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from graftlab.errors import ConfigError
from graftlab.files.reading import LARGEST_YAML as LARGEST
from graftlab.files.reading import UnreadableError, load_json, read_text
from graftlab.text.json_schema import grammar, malformed, pointer, require_llguidance

KEY = "generation.schema"

_EMPTY = "Unsatisfiable"
_MAPS = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
_LISTS = ("prefixItems", "anyOf", "oneOf", "allOf")
_ONES = ("items", "additionalProperties", "not", "if", "then", "else", "contains", "propertyNames")


def read_schema(given: Any, *, key: str = KEY, held: bool = True) -> dict[str, Any]:
    """The schema that a key names: a JSON file, or the JSON itself.

    Raises ConfigError for a missing file, for what is not JSON, not a JSON schema, or, where
    replies are to be `held` to it, one that they cannot be: the message says which keyword, and
    where.
    """
    schema, where = _parsed(given, key)
    if not isinstance(schema, dict):
        raise ConfigError(
            f"{where} must be a JSON object that describes the reply, not {schema!r}."
        )
    problems = list(malformed(schema))
    if held and not problems and (found := _not_supported(schema)):
        problems = [found]
    if problems:
        raise ConfigError(f"{where} cannot be used as a schema:\n  " + "\n  ".join(problems))
    return schema


def raise_error(matcher: Any) -> None:
    """Raise ConfigError when llguidance has given up on a schema, for one too complex."""
    if matcher.is_error():
        raise ConfigError(f"{KEY}: llguidance gives up: {matcher.get_error()}")


def words(schema: Any) -> Iterator[str]:
    """Every string that the schema itself writes into replies: names of properties, constants."""
    yield from required_names(schema)
    for _, inner in _walk(schema):
        yield from inner.get("properties", {})
        for value in (*inner.get("enum", []), inner.get("const")):
            yield from [value] if isinstance(value, str) else []


def required_names(schema: Any) -> Iterator[str]:
    """Names of properties that some object of the schema requires."""
    for _, inner in _walk(schema):
        yield from (name for name in inner.get("required", []) if isinstance(name, str))


def _parsed(given: Any, key: str) -> tuple[Any, str]:
    """The JSON, and how messages name it."""
    if isinstance(given, Mapping):
        return dict(given), key
    text, where = str(given).strip(), key
    if not text.startswith(("{", "[")):
        path = Path(text).expanduser()
        where = f"{key}={text}"
        try:
            text = read_text(path, most=LARGEST)
        except (OSError, ValueError) as error:  # ValueError: a name that no file can have, too
            reason = getattr(error, "strerror", None) or str(error)
            raise ConfigError(
                f"{where} cannot be read: {reason}. Give a JSON schema file, or the schema itself "
                f'as JSON: {key}=\'{{"type": "object", ...}}\'.'
            ) from None
    try:
        return load_json(text), where
    except UnreadableError as error:
        raise ConfigError(f"{where} {error}.") from None


def _not_supported(schema: Mapping[str, Any]) -> str | None:
    """The first thing that llguidance cannot hold a reply to, with its place; None when all is."""
    if message := _refusal(schema):
        place, innermost = _blame(schema, schema, message)
        return f"at {pointer(place)}, replies cannot be held to it by llguidance: {innermost}"
    for path, inner in _walk(schema):
        least = inner.get("minProperties", 0)
        listed = set(inner.get("required", []))
        if isinstance(least, int) and least > max(1, len(listed)):
            return (
                f"at {pointer(path)}: minProperties={least} counts properties of free names, "
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
