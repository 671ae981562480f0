"""JSON schemas: what is wrong with one, what a text has against one, and its grammar.

Data that is written for guided generation is judged by the very grammar that replies are held to.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import Any

from graftlab.errors import ConfigError
from graftlab.files.reading import load_json
from graftlab.text.json_patterns import limited, validator_class
from graftlab.text.patterns import PatternProblem

WHITESPACE = r" |\n {0,16}"
"""Between tokens of JSON: nothing, one space, or a line end and its indentation. Any white space
whatever would let a model go on for ever without saying anything."""


def require_llguidance() -> Any:
    """The package `llguidance`. Raises ConfigError with the line that installs it."""
    try:
        import llguidance
    except ImportError as error:
        raise ConfigError(_missing("llguidance")) from error
    return llguidance


def require_jsonschema() -> Any:
    """The package `jsonschema`. Raises ConfigError with the line that installs it."""
    try:
        import jsonschema
    except ImportError as error:
        raise ConfigError(_missing("jsonschema")) from error
    return jsonschema


def malformed(schema: Mapping[str, Any]) -> tuple[str, ...]:
    """What the meta-schema of draft 2020-12 says against it, each with its place."""
    require_jsonschema()  # asked for even where the answer is remembered
    return _malformed(json.dumps(schema))


def mismatch(text: str, schema: Mapping[str, Any]) -> str | None:
    """Why `text` is not JSON of this well-formed schema; None when it is.

    Numbers are compared as they are written, in decimal: 0.07 is a multiple of 0.01.
    """
    jsonschema = require_jsonschema()
    try:
        load_json(text)  # within the limits on depth
        value = json.loads(text, parse_float=_exact)
    except ValueError as error:
        return f"not JSON: {error.__cause__ or error}"
    judge = validator_class()(json.loads(json.dumps(schema), parse_float=_exact))
    try:
        with limited():
            worst = jsonschema.exceptions.best_match(judge.iter_errors(value))
    except PatternProblem as problem:
        return str(problem)
    if worst is None:
        return None
    return f"{worst.json_path}: " + re.sub(r"Decimal\('([^']*)'\)", r"\1", worst.message)


def grammar(schema: Mapping[str, Any]) -> str:
    """The schema as llguidance reads it; an `x-guidance` key of its own may choose separators.

    Raises ValueError for an `x-guidance` key that is not one.
    """
    return _grammar(json.dumps(schema))


def pointer(path: Iterable[Any]) -> str:
    """A JSON pointer, or words for the whole."""
    steps = [str(step).replace("~", "~0").replace("/", "~1") for step in path]
    return "/" + "/".join(steps) if steps else "the top"


@lru_cache(maxsize=256)
def _malformed(schema: str) -> tuple[str, ...]:
    """Kept, as most rows of a file share their schema."""
    judge = require_jsonschema().Draft202012Validator
    errors = judge(judge.META_SCHEMA).iter_errors(json.loads(schema))
    found = sorted(errors, key=lambda error: list(map(str, error.path)))
    return tuple(f"at {pointer(error.path)}: {error.message}" for error in found)


@lru_cache(maxsize=256)
def _grammar(schema: str) -> str:
    compiled: str = require_llguidance().LLMatcher.grammar_from_json_schema(
        schema,
        defaults={"whitespace_pattern": WHITESPACE},
        overrides={"lenient": False, "coerce_one_of": False},  # both let wrong replies through
    )
    return compiled


def _exact(number: str) -> Decimal | float:
    """A number with a point or an exponent as it is written; infinity for what no Decimal holds."""
    try:
        return Decimal(number)
    except InvalidOperation:
        return float(number)


def _missing(package: str) -> str:
    return f"JSON schemas need the package {package}: pip install 'graftlab[guided]'."
