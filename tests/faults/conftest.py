"""A small run, its base and data made once for a module."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from graftlab.training.checkpoint import Checkpointing
from graftlab.training.spec import TrainSpec
from training_spec import small_root, small_spec


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_root(tmp_path_factory.mktemp("faults"))


@pytest.fixture
def spec(root: Path, tmp_path: Path) -> TrainSpec:
    every = Checkpointing(every_steps=1, keep="all")
    return replace(small_spec(root), run_dir=str(tmp_path / "run"), checkpoint=every, max_steps=4)
