"""Every key and choice that the troubleshooting tables name exists."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from graftlab.choices import CHOICES, field_types, nested_spec
from graftlab.tasks.sample import SampleSpec
from graftlab.tasks.train import TrainSpec

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
TYPED = {"lora.from": "lora.from_run"}
SPANS = re.findall(r"`([^`]+)`", TEXT)
PAIRS = sorted({pair for span in SPANS for pair in re.findall(r"(?<![\w.])([a-z_.]+)=(\S*)", span)})


def specs_of(group: str, declared: object) -> list[type]:
    """The classes a node of the configuration may be."""
    own = nested_spec(declared)
    return [*CHOICES.get(group, {}).values(), *([own] if own else [])]


def exists(key: str) -> bool:
    """Whether `key` is a dotted path of `train` or `sample`."""
    classes: list[type] = [TrainSpec, SampleSpec]
    for name in TYPED.get(key, key).split("."):
        found = [field_types(cls)[name] for cls in classes if name in field_types(cls)]
        if not found:
            return False
        classes = [cls for hint in found for cls in specs_of(name, hint)]
        classes = [cls for cls in classes if dataclasses.is_dataclass(cls)]
    return True


def test_there_are_keys_to_check() -> None:
    assert len(PAIRS) > 40
    assert not exists("lora.rnak")
    assert exists("callbacks.plateau.min_steps")


@pytest.mark.parametrize(("key", "value"), PAIRS, ids=lambda text: str(text)[:30])
def test_a_named_key_exists(key: str, value: str) -> None:
    group = ROOT / "conf" / key
    if group.is_dir() and value:
        for choice in value.strip("[]").split(","):
            assert (group / f"{choice}.yaml").is_file(), f"{key}={choice} is no option"
    else:
        assert key == "debug" or exists(key), f"{key} is no key"
