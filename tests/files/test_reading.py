"""YAML and JSON of others: limits hold, and what is in them stays data."""

from __future__ import annotations

import json

import pytest

from graftlab.files.reading import UnreadableError, deeper_than, load_json, load_yaml, read_yaml


def nested(levels: int) -> str:
    return "[" * levels + "]" * levels


@pytest.mark.parametrize("load", [load_yaml, load_json])
def test_depth_is_limited_and_what_is_under_it_is_read(load):
    assert load(nested(100)) == json.loads(nested(100))
    for levels in (101, 900, 100_000):
        with pytest.raises(UnreadableError, match="nested more than 100 levels"):
            load(nested(levels))


def test_block_yaml_is_as_deep_as_it_is_indented():
    text = "".join(" " * level + "a:\n" for level in range(200))
    with pytest.raises(UnreadableError, match="nested more than"):
        load_yaml(text)


def test_aliases_count_as_what_they_stand_for():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    with pytest.raises(UnreadableError, match="100,000 nodes"):
        load_yaml("\n".join(lines))
    assert load_yaml("a: &a [1, 2]\nb: *a") == {"a": [1, 2], "b": [1, 2]}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: &a [*a]", "an alias stands inside"),
        ("!!python/object/apply:os.system [true]", "is no YAML"),
        ("a: [1", "is no YAML"),
        ("when: 2026-13-45", "is no YAML"),
        ("x: " + "y" * 2**22, "larger than 4 MiB"),
    ],
)
def test_yaml_that_is_refused(text, reason):
    with pytest.raises(UnreadableError, match=reason):
        load_yaml(text)


@pytest.mark.parametrize("text", ["{", "[1,]", "9" * 5000, b"\xff\xfe"])
def test_json_that_is_refused(text):
    with pytest.raises(UnreadableError, match="is no JSON"):
        load_json(text)


def test_the_file_is_named(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_bytes(b"\xff")
    with pytest.raises(UnreadableError, match="run.yaml is not UTF-8"):
        read_yaml(file)


def test_depth_of_a_value():
    assert not deeper_than({"a": [1]}, 2)
    assert deeper_than({"a": [{}]}, 2)
    assert not deeper_than("text", 0)
