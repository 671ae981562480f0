"""The small run that tests of training start from."""

from __future__ import annotations

from pathlib import Path

from chats import chats
from graftlab.data.jsonl import JsonlData
from graftlab.generation.sampling import Generation
from graftlab.models.hf import HFModel
from graftlab.objectives.sft import SFT
from graftlab.packing.plan import Packing
from graftlab.training.optimizers.adamw import AdamW
from graftlab.training.precision import Precision
from graftlab.training.schedule import Schedule
from graftlab.training.spec import TrainSpec
from graftlab.training.watch import Callbacks, Samples
from miniatures import miniature


def small_root(root: Path) -> Path:
    """Base, train.jsonl and valid.jsonl for a small run, written to `root`."""
    miniature("qwen2", root / "base")
    chats(root / "train.jsonl", 11)
    chats(root / "valid.jsonl", 4)
    return root


def small_spec(root: Path) -> TrainSpec:
    """Five rows an epoch, fp32, no samples; `root` is one of `small_root`."""
    return TrainSpec(
        model=HFModel(path=str(root / "base")),
        data=JsonlData(train=str(root / "train.jsonl"), valid=str(root / "valid.jsonl")),
        objective=SFT(),
        optimizer=AdamW(),
        precision=Precision(name="fp32"),
        packing=Packing(strategy="best-fit", max_length=80),
        schedule=Schedule(warmup_steps=2),
        callbacks=Callbacks(samples=Samples(prompts=0)),
        generation=Generation(max_new_tokens=4),
        epochs=2,
        lr=1e-3,
        compile="off",
        run_dir="run",
    )
