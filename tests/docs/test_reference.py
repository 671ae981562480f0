"""docs/reference/ is what the specs and conf/ say today, and says what it should."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "reference"


@pytest.fixture
def reference(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """docs/reference.py, as `make docs` runs it."""
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    return importlib.import_module("reference")


def test_the_pages_are_up_to_date(reference: ModuleType) -> None:
    texts = reference.pages()
    there = {page.name: page.read_text(encoding="utf-8") for page in FOLDER.glob("*.md")}
    old = [
        name for name in sorted(texts.keys() | there.keys()) if texts.get(name) != there.get(name)
    ]
    assert not old, f"run `make docs`: {', '.join(old)} in docs/reference/ are out of date"


def test_every_key_that_help_knows_is_on_a_page(reference: ModuleType) -> None:
    """Against the table that `--help` and the check of typed keys use."""
    on_pages = "\n".join(reference.pages().values())
    named = set(re.findall(r"^(?:\| `|### )([\w.]+)", on_pages, re.MULTILINE))
    missing = [
        (verb, key)
        for verb in reference.VERBS
        for key in leaf_keys(reference.read_schema(verb, [reference.CONF]))
        if not any(name == key or name.startswith(f"{key}.") for name in named)
    ]
    assert missing == []


def leaf_keys(schema) -> list[str]:
    """Dotted keys that have none below them, but for the folder that Hydra sets."""
    keys = [key for key in schema.dotted_keys() if key != "run_dir"]
    assert len(keys) > 1
    return [key for key in keys if not any(other.startswith(f"{key}.") for other in keys)]


def test_values_notes_and_inheritance_are_read(tmp_path: Path, reference: ModuleType) -> None:
    commented = importlib.import_module("commented")
    (tmp_path / "base.yaml").write_text("# A base.\nrate: 1e-3 # inherited\nsteps: 4 # replaced\n")
    (tmp_path / "own.yaml").write_text(
        "# @package _global_\n# First line,\n# second line:\n#   graftlab train own=1\n"
        "defaults:\n  - /schema/group/kind@_here_ # keys\n  - base\n  - _self_\n"
        "  - override /lora: dora # chosen here\n"
        "steps: 5 # our # own\nnest:\n  list: [a, 1] # two\n  block: # three\n    - x # not this\n"
    )
    option = commented.read_option(tmp_path / "own.yaml")
    assert (option.package, option.schema) == ("_global_", "kind")
    assert option.about == "First line, second line"
    assert option.commands == ["graftlab train own=1"]
    assert [(k, leaf.value, leaf.note) for k, leaf in option.takes.items()] == [
        ("lora", "dora", "chosen here")
    ]
    assert [(k, leaf.value, leaf.note) for k, leaf in option.values.items()] == [
        ("rate", "1e-3", "inherited"),
        ("steps", 5, "our # own"),
        ("nest.list", ["a", 1], "two"),
        ("nest.block", ["x"], "three"),
    ]


def test_types_are_said_in_words(reference: ModuleType) -> None:
    said = reference.type_in_words
    assert said(int | None) == "whole number or null"
    assert said(float | int | str) == "number or a word"
    assert said(list[str]) == "list of text"
    assert said(dict[str, int]) == "keys of your own"
