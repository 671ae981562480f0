"""The small run that tests of training start from."""

from __future__ import annotations

from pathlib import Path

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


def small_spec(root: Path) -> TrainSpec:
    """Five rows an epoch, fp32, no samples; `root` holds base, train.jsonl and valid.jsonl."""
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
