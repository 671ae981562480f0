"""A small run that every test of training starts from."""

from __future__ import annotations

from pathlib import Path

import pytest

from chats import chats
from graftlab.data.source import JsonlData
from graftlab.generation.sampling import Generation
from graftlab.models.hf import HFModel
from graftlab.objectives.ce import CrossEntropy
from graftlab.packing.plan import Packing
from graftlab.tasks.train import TrainSpec
from graftlab.training.optim import AdamW
from graftlab.training.precision import Precision
from graftlab.training.schedule import Schedule
from graftlab.training.watch import Callbacks, Samples
from miniatures import miniature


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A miniature base and two data files, shared by a module's tests."""
    root = tmp_path_factory.mktemp("training")
    miniature("qwen2", root / "base")
    chats(root / "train.jsonl", 11)
    chats(root / "valid.jsonl", 4)
    return root


@pytest.fixture
def spec(root, tmp_path) -> TrainSpec:
    """Five rows an epoch, fp32, no samples; tests change what they are about."""
    return TrainSpec(
        model=HFModel(path=str(root / "base")),
        data=JsonlData(train=str(root / "train.jsonl"), valid=str(root / "valid.jsonl")),
        objective=CrossEntropy(),
        optimizer=AdamW(),
        precision=Precision(name="fp32"),
        packing=Packing(max_length=80),
        schedule=Schedule(warmup_steps=2),
        callbacks=Callbacks(samples=Samples(prompts=0)),
        generation=Generation(max_new_tokens=4),
        epochs=2,
        compile="off",
        run_dir=str(tmp_path / "run"),
    )
