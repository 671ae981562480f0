"""docs/models.md says what becomes of each family that transformers knows."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest

from families import families
from family_trials import trial
from slower import mostly_slow

ROOT = Path(__file__).parents[2]
QUICK = [
    *("gpt2", "opt", "gemma4_text", "laguna", "ernie4_5_moe"),
    *("gpt_oss", "bloom", "llama4_text", "deepseek_v4", "qwen4_exp_text"),
    *("bert", "bart", "blt", "gemma4", "phimoe"),
]
"""One for each way that a family takes here."""

pytestmark = pytest.mark.filterwarnings("ignore")  # of transformers' own code, family by family


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """docs/models.py, as `make models` runs it."""
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    return importlib.import_module("models")


def same_as_page(models: ModuleType, model_type: str, place: Path) -> None:
    found = trial(model_type, place)
    cells = (models.trains(found), models.targets(found))
    assert models.on_page()[model_type] == cells, "docs/models.md is out of date: `make models`"


@pytest.mark.parametrize(
    "model_type", mostly_slow(QUICK, "gpt2", "gemma4_text", "gpt_oss", "bloom", "bert", "blt")
)
def test_a_family_of_each_kind_does_as_the_page_says(
    model_type: str, models: ModuleType, tmp_path: Path
) -> None:
    same_as_page(models, model_type, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("model_type", sorted(set(families()) - set(QUICK)))
def test_every_family_does_as_the_page_says(
    model_type: str, models: ModuleType, tmp_path: Path
) -> None:
    same_as_page(models, model_type, tmp_path)


def test_every_family_has_a_row(models: ModuleType) -> None:
    rows = models.on_page()
    assert sorted(rows) == families()
    kinds = [trains.partition(":")[0] for trains, _ in rows.values()]
    assert kinds.count("packed") >= 80
    assert kinds.count("one conversation a row") >= 45
    assert set(kinds) == {"packed", "one conversation a row", "refused"}
    working = sum(not trains.startswith("refused") for trains, _ in rows.values())
    assert f"the {working} model families" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert all(bool(found) != trains.startswith("refused") for trains, found in rows.values())
