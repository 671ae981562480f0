"""A small run, its base and data made once for a module."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from chats import chats
from graftlab.training.checkpoint import Checkpointing
from graftlab.training.spec import TrainSpec
from miniatures import miniature
from training_spec import small_spec


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("faults")
    miniature("qwen2", root / "base")
    chats(root / "train.jsonl", 11)
    chats(root / "valid.jsonl", 4)
    return root


@pytest.fixture
def spec(root: Path, tmp_path: Path) -> TrainSpec:
    every = Checkpointing(every_steps=1, keep="all")
    return replace(small_spec(root), run_dir=str(tmp_path / "run"), checkpoint=every, max_steps=4)
