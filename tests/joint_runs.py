"""Runs that differ in all that joint training allows, and how two run folders are compared."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from graftlab.adapters.lora import Lora
from graftlab.tracking.folder import RunFolder
from graftlab.tracking.history import TIMES
from graftlab.training.joint.groups import Joiners, JointJob, RunEnded, no_joiners
from graftlab.training.joint.run import execute_together
from graftlab.training.observer import Observer
from graftlab.training.optimizers.adamw import AdamW
from graftlab.training.optimizers.custom import CustomOptimizer
from graftlab.training.schedule import Schedule
from graftlab.training.spec import TrainSpec


def varied(spec: TrainSpec) -> list[TrainSpec]:
    """Five runs: ranks 4 to 16, dropout or none, other targets, lengths, optimizers, schedules."""
    spec = replace(spec, accumulate=2)
    return [
        replace(spec, lr=1e-3, lora=Lora(rank=4)),
        replace(
            spec,
            lr=3e-3,
            epochs=4,
            lora=Lora(rank=8, dropout=0.1, targets="attn"),
            optimizer=AdamW(lora_plus_ratio=4.0),
        ),
        replace(
            spec,
            lr=5e-4,
            epochs=3,
            lora=Lora(
                rank=16,
                rslora=True,
                alpha=8,
                init="gaussian",
                seed=7,
                rank_pattern={"q_proj": 3, "layers.1.mlp.up_proj": 20},
                alpha_pattern={"v_proj": 20.0},
            ),
            optimizer=AdamW(weight_decay=0.2, beta1=0.8, clip_norm=None),
            schedule=Schedule(shape="wsd", warmup_ratio=0.2),
        ),
        replace(
            spec,
            lr=2e-3,
            max_steps=5,
            lora=Lora(rank=6, dropout=0.3, targets=["v_proj", "down_proj"], layers=1, scale=3.0),
            schedule=Schedule(shape="linear"),
        ),
        replace(
            spec,
            lr=1e-3,
            lora=Lora(rank=2, init="orthogonal"),
            optimizer=CustomOptimizer(target="torch.optim.RMSprop", clip_norm=0.5),
        ),
    ]


def placed(spec: TrainSpec, folder: Path, observer: Observer | None = None) -> JointJob:
    """The run as a job in its folder."""
    spec = replace(spec, run_dir=str(folder))
    return JointJob(spec=spec, folder=RunFolder(folder), observer=observer or Observer())


def together(
    specs: Sequence[TrainSpec],
    root: Path,
    *,
    observers: dict[int, Observer] | None = None,
    joiners: Joiners = no_joiners,
) -> list[RunEnded]:
    """Train `specs` jointly in `root/0`, `root/1` ...; the outcomes in the order they came."""
    watched = observers or {}
    jobs = [placed(spec, root / str(i), watched.get(i)) for i, spec in enumerate(specs)]
    return list(execute_together(jobs, joiners=joiners))


def rows(run: Path) -> list[dict[str, Any]]:
    """The training log without what the clock says."""
    with (run / "train_log.csv").open() as file:
        return [
            {k: float(v) for k, v in row.items() if k not in TIMES and v != ""}
            for row in csv.DictReader(file)
        ]


def products(run: Path, adapter: str = "adapter-final") -> dict[str, Any]:
    """B @ A of every adapted module."""
    tensors = load_file(run / adapter / "adapter_model.safetensors")
    return {
        name.removesuffix(".lora_A.weight"): tensors[name.replace("lora_A", "lora_B")]
        @ tensors[name]
        for name in tensors
        if "lora_A" in name
    }


def distance(one: Path, other: Path) -> float:
    """The largest relative distance between two runs' products."""
    ours, theirs = products(one), products(other)
    assert ours.keys() == theirs.keys()
    assert ours
    return max(float((ours[n] - theirs[n]).norm() / theirs[n].norm()) for n in ours)


def same_bits(one: Path, other: Path, adapter: str = "adapter-final") -> bool:
    files = [run / adapter / "adapter_model.safetensors" for run in (one, other)]
    return files[0].read_bytes() == files[1].read_bytes()


def assert_equal_runs(ours: Path, theirs: Path, *, loss: float = 1e-5, product: float = 1e-4):
    """Logs and weights of two runs agree within rounding."""
    left, right = rows(ours), rows(theirs)
    assert [row.keys() for row in left] == [row.keys() for row in right]
    for mine, other in zip(left, right, strict=True):
        for name, value in other.items():
            near = loss if "loss" in name else abs(value) * 1e-3
            assert abs(mine[name] - value) <= near, (other["step"], name, mine[name], value)
    assert distance(ours, theirs) <= product
