"""A run whose validation rows came to nothing says so, or is refused where they are waited for."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from graftlab.errors import ConfigError
from graftlab.tracking.folder import RunFolder
from graftlab.training.callbacks.early_stopping import EarlyStopping
from graftlab.training.callbacks.plateau import Plateau
from graftlab.training.setup import Setup, resolve_setup, resolve_setup_like
from graftlab.training.spec import TrainSpec
from graftlab.training.watch import Callbacks, Samples, Validation

EARLY: dict[str, Any] = {"chosen": {"early_stopping": EarlyStopping()}}
LONG = {
    "messages": [
        {"role": "user", "content": "Say it again and again."},
        {"role": "assistant", "content": "Again " * 200},
    ]
}


def settled(spec: TrainSpec, tmp_path: Path) -> Setup:
    return resolve_setup(spec, RunFolder(tmp_path / "run"))


def watching(**fields: Any) -> Callbacks:
    return Callbacks(samples=Samples(prompts=0), **fields)


@pytest.fixture
def too_long(spec: TrainSpec, tmp_path: Path) -> TrainSpec:
    """Its only validation row is over the limit."""
    file = tmp_path / "long.jsonl"
    file.write_text(json.dumps(LONG) + "\n")
    return replace(spec, data=replace(spec.data, valid=str(file)))


def test_a_validation_file_that_comes_to_nothing_is_told(
    too_long: TrainSpec, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert settled(too_long, tmp_path).plan.valid is None
    lines = capsys.readouterr().out.splitlines()
    told = "! There will be no validation loss: all validation documents (1) are longer"
    assert any(line.startswith(told) for line in lines)


def test_no_validation_asked_for_is_no_news(
    spec: TrainSpec, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    none = replace(spec, data=replace(spec.data, valid=None, valid_fraction=0.0))
    watched = replace(
        none, callbacks=watching(chosen={"plateau": Plateau()})
    )  # of the training loss
    assert settled(watched, tmp_path).plan.valid is None
    assert "!" not in capsys.readouterr().out


def test_early_stopping_needs_validation_rows(
    spec: TrainSpec, too_long: TrainSpec, tmp_path: Path
) -> None:
    settled(replace(spec, callbacks=watching(**EARLY)), tmp_path)
    none = replace(spec, data=replace(spec.data, valid=None, valid_fraction=0.0))
    for unable, why in ((too_long, r"documents \(1\) are longer"), (none, "holds none out")):
        early = replace(unable, callbacks=watching(**EARLY))
        with pytest.raises(ConfigError, match=f"early_stopping waits .*{why}"):
            settled(early, tmp_path)
        shared = settled(unable, tmp_path)
        with pytest.raises(ConfigError, match=f"early_stopping waits .*{why}"):
            resolve_setup_like(shared, early, RunFolder(tmp_path / "other"))


def test_early_stopping_needs_validation_before_the_end(spec: TrainSpec) -> None:
    rarely = Validation(every_epochs=None)
    replace(spec, callbacks=watching(validation=rarely))
    with pytest.raises(ConfigError, match="only measured at the end"):
        replace(spec, callbacks=watching(validation=rarely, **EARLY))
    often = Validation(every_epochs=None, every_steps=5)
    replace(spec, callbacks=watching(validation=often, **EARLY))
