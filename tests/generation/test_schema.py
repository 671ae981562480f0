"""Schemas as they are given: what is wrong, and where in the schema it stands."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from graftlab.errors import ConfigError
from graftlab.generation.schema import read_schema
from graftlab.text.json_schema import mismatch
from schemas import SCHEMAS, closed


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_file_the_json_and_the_mapping_are_the_same(name: str, tmp_path: Path) -> None:
    file = tmp_path / "schema.json"
    file.write_text(json.dumps(SCHEMAS[name]), encoding="utf-8")
    given = (str(file), json.dumps(SCHEMAS[name]), SCHEMAS[name])
    assert [read_schema(form) for form in given] == [SCHEMAS[name]] * 3


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("nowhere.json", ["generation.schema=nowhere.json", "No such file", "as JSON"]),
        ("/dev/zero", ["generation.schema=/dev/zero cannot be read"]),
        ("no\0name.json", ["cannot be read"]),
        ('{"type": "object"', ["generation.schema is no JSON", "line 1"]),
        ("[1]", ["must be a JSON object", "[1]"]),
        ({"type": "strin"}, ["at /type", "'strin'"]),
        ({"properties": {"a/b": {"minLength": -1}}}, ["at /properties/a~1b/minLength"]),
        (
            closed(tags={"type": "array", "uniqueItems": True}),
            ["at /properties/tags", "uniqueItems"],
        ),
        (
            {"$defs": {"x": {"not": {}}}, "anyOf": [{"type": "null"}, {"$ref": "#/$defs/x"}]},
            ["at /$defs/x", "not"],
        ),
        (closed(a=closed(b={"type": "string", "pattern": "^(?=a)b"})), ["at /properties/a/proper"]),
        (
            closed(year={"type": "integer", "minimum": 5, "maximum": 3}),
            ["at /properties/year", "minimum (5) is greater than maximum (3)"],
        ),
        (
            {"oneOf": [{"type": "integer"}, {"type": "number"}]},
            ["at the top", "oneOf"],
        ),
        (closed(m={"type": "object", "minProperties": 3}), ["/properties/m", "minProperties=3"]),
        ({"type": "string", "x-guidance": {"lenent": True}}, ["lenent"]),
    ],
    ids=lambda value: None if isinstance(value, list) else str(value)[:30],
)
def test_what_cannot_be_used_is_named_with_its_place(given: Any, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        read_schema(given)
    for word in words:
        assert word in str(caught.value)


def test_all_malformed_places_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        read_schema(closed(a={"type": "strin"}, b={"minimum": "three"}))
    assert "/properties/a/type" in str(caught.value)
    assert "/properties/b/minimum" in str(caught.value)


def test_lenient_schemas_are_still_held_to() -> None:
    """llguidance would overlook what it does not know; then replies would not be valid."""
    with pytest.raises(ConfigError, match="uniqueItems"):
        read_schema({"type": "array", "uniqueItems": True, "x-guidance": {"lenient": True}})


@pytest.mark.parametrize("package", ["llguidance", "jsonschema"])
def test_a_missing_package_is_told_with_what_installs_it(
    package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=f"{package}: pip install 'graftlab\\[guided\\]'"):
        read_schema({"type": "integer", "minimum": 1492})


def test_mismatches() -> None:
    schema = closed(price={"type": "number", "multipleOf": 0.01})
    assert mismatch('{"price": 0.07}', schema) is None  # 0.07 / 0.01 is 7.000000000000001
    assert mismatch('{"price": 0.075}', schema) == "$.price: 0.075 is not a multiple of 0.01"
    assert "not JSON" in str(mismatch('{"price": 0.07', schema))
    assert "'price' is a required property" in str(mismatch("{}", schema))
