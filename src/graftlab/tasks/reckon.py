"""What a plan is asked, put together from a run's configuration."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING

from graftlab.tasks.described import describe, read_documents, shape_of
from graftlab.tasks.probing import probe

if TYPE_CHECKING:
    from graftlab.planning.advice import Run
    from graftlab.planning.changes import Knobs
    from graftlab.planning.memory import Settings
    from graftlab.planning.plan import Plan
    from graftlab.planning.shape import Shape
    from graftlab.planning.workload import Documents, Workload
    from graftlab.tasks.train import TrainSpec

STATE = {"SGD": 0.0, "Adafactor": 0.1, "Adagrad": 4.0, "RMSprop": 4.0, "Rprop": 8.0}
"""Bytes of state per trained parameter of optimizers unlike Adam, whose two moments take 8."""
TINY = 20_000_000
"""Parameters below which the guides' learning rates do not apply."""


def reckon_run(spec: TrainSpec, *, probed: bool = False, done_steps: int = 0) -> Plan:
    """The plan of `spec`. Raises GraftlabError saying what is missing."""
    from graftlab.planning.advice import advise
    from graftlab.planning.changes import Knobs
    from graftlab.planning.device import shelf
    from graftlab.planning.plan import Question, answer

    base = describe(spec)
    documents, valid_tokens, notes = read_documents(spec, base)
    knobs = Knobs(
        spec.batch_size,
        spec.accumulate,
        spec.lora.rank,
        spec.packing.max_length,
        settings_of(spec, notes),
    )

    @lru_cache
    def shape_at(rank: int) -> Shape:
        return shape_of(base, spec, rank)

    @lru_cache
    def packed(batch_size: int, accumulate: int, max_length: int) -> Workload:
        return _workload(spec, documents, valid_tokens, (batch_size, accumulate, max_length))

    def load_at(turned: Knobs) -> Workload:
        return packed(turned.batch_size, turned.accumulate, turned.max_length)

    shape, load = shape_at(knobs.rank), load_at(knobs)
    knobs = replace(knobs, settings=replace(knobs.settings, compiled=compiles(spec, load, shape)))
    on_processor = spec.device.kind == "cpu"
    question = Question(
        knobs=knobs,
        shape_at=shape_at,
        load_at=load_at,
        device=spec.device,
        devices=shelf(),
        limits=spec.budget,
        dtype=knobs.settings.precision.removesuffix("-mixed"),
        measured_peak=_matrix_peak(knobs.settings.precision) if on_processor else None,
        probe=probe(spec, compiled=knobs.settings.compiled) if probed else None,
        max_minutes=spec.max_minutes,
        done_steps=done_steps,
    )
    return answer(
        question, title=_title(spec), advice=advise(_advised(spec, shape, load)), notes=notes
    )


def _workload(
    spec: TrainSpec, documents: Documents, valid_tokens: int, sizes: tuple[int, int, int]
) -> Workload:
    from graftlab.planning.workload import Schedule, lay_out

    batch_size, accumulate, max_length = sizes
    watched = spec.callbacks.validation
    schedule = Schedule(
        batch_size=batch_size,
        accumulate=accumulate,
        epochs=spec.epochs,
        max_steps=spec.max_steps,
        processes=spec.trainer.devices,
        validate_epochs=watched.every_epochs,
        validate_steps=watched.every_steps,
    )
    packing = replace(spec.packing, max_length=max_length)
    return lay_out(documents, packing, schedule, valid_tokens=valid_tokens)


def settings_of(spec: TrainSpec, notes: list[str]) -> Settings:
    """What memory depends on; `notes` is added to where training would be refused."""
    from graftlab.planning.memory import Settings

    name = spec.precision.name
    if name == "auto":
        name = _auto_precision() if spec.device.kind == "cpu" else "bf16-mixed"
    if name == "fp16-mixed" and spec.device.kind != "cuda":
        notes.append(
            "precision=fp16-mixed needs CUDA: training is refused elsewhere (device=h100, or "
            "precision=bf16-mixed)."
        )
    target = getattr(spec.optimizer, "target", "").rpartition(".")[2]
    state = STATE.get(target, 8.0) + (2.0 if name == "bf16" else 0.0)
    if target == "SGD" and getattr(spec.optimizer, "arguments", {}).get("momentum"):
        state += 4.0
    return Settings(
        precision=name,
        checkpointing=spec.model.gradient_checkpointing,
        dropout=spec.lora.dropout > 0,
        dora=spec.lora.dora,
        optimizer_bytes=state,
        sharded=spec.trainer.devices if spec.trainer.strategy == "fsdp2" else 1,
        kind=spec.device.kind,
    )


def compiles(spec: TrainSpec, load: Workload, shape: Shape) -> bool:
    """Whether training would compile its layers, as `models/compile.py` decides."""
    from graftlab.models.compile import CUDA_STEPS, plan_compile

    passes = round(load.steps * spec.accumulate)
    if spec.compile == "off" or (spec.compile == "auto" and spec.lora.dora):
        return False
    if spec.device.kind != "cpu":
        worth = spec.compile == "on" or passes >= CUDA_STEPS
        return worth and spec.device.kind == "cuda"
    import torch

    decided, _ = plan_compile(
        spec.compile,
        planned_steps=passes,
        tokens_per_step=load.tokens_per_step / spec.accumulate / load.processes,
        device=torch.device("cpu"),
        num_parameters=shape.parameters,
    )
    return decided


def _auto_precision() -> str:
    import torch

    from graftlab.training.precision import Precision, resolve

    return resolve(Precision(), torch.device("cpu")).name


def _matrix_peak(precision: str) -> float:
    """FLOP/s of a large matrix product on this processor."""
    import torch

    from graftlab.training.device import matrix_peak

    dtype = torch.float32 if precision == "fp32" else torch.bfloat16
    return matrix_peak(torch.device("cpu"), dtype)


def _advised(spec: TrainSpec, shape: Shape, load: Workload) -> Run:
    from graftlab.planning.advice import Run

    rank = spec.lora.rank
    divisor = math.sqrt(rank) if spec.lora.rslora else rank
    ordered = sorted(int(length) for length in load.lengths)
    return Run(
        documents=load.budget.documents,
        epochs=load.epochs,
        rank=rank,
        lr=spec.lr,
        scale=spec.lora.effective_alpha / divisor,
        dora=spec.lora.dora,
        tiny=shape.parameters < TINY,
        max_length=spec.packing.max_length,
        longest=ordered[-1],
        p95=ordered[round(0.95 * (len(ordered) - 1))],
        over_limit=load.budget.over_limit,
        early_stopping=spec.callbacks.early_stopping is not None,
    )


def _title(spec: TrainSpec) -> str:
    length = f"{spec.max_steps} steps" if spec.max_steps else f"{spec.epochs} epochs"
    own = f"{spec.name}: " if spec.name else ""
    return (
        f"{own}lr {spec.lr:g}, rank {spec.lora.rank}, {length}, "
        f"batch {spec.batch_size} x {spec.accumulate}"
    )
