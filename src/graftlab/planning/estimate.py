"""What a plan is asked, put together from a run's configuration."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING

from graftlab.machine import all_machines
from graftlab.models.gguf import GGUFModel
from graftlab.models.hf import HFModel
from graftlab.planning.advice import AdvisedRun, advise
from graftlab.planning.changes import Knobs
from graftlab.planning.inputs import shape_of
from graftlab.planning.lookup_cache import LookupCache
from graftlab.planning.memory import Settings
from graftlab.planning.plan import Plan, Question, answer
from graftlab.planning.probe import probe
from graftlab.planning.shape import Shape
from graftlab.planning.workload import Workload
from graftlab.training.auto import resolve_auto
from graftlab.training.guides import TINY
from graftlab.training.spec import TrainSpec

if TYPE_CHECKING:
    import torch

STATE = {"SGD": 0.0, "Adafactor": 0.1, "Adagrad": 4.0, "RMSprop": 4.0, "Rprop": 8.0}
"""Bytes of state per trained parameter of optimizers unlike Adam, whose two moments take 8."""


def estimate_run(spec: TrainSpec, *, probed: bool = False) -> Plan:
    """The plan of `spec`. Raises GraftlabError saying what is missing."""
    question, notes = question_of(spec)
    shape, load = question.shape_at(question.knobs.rank), question.load_at(question.knobs)
    compiled = question.knobs.settings.compiled
    question = replace(
        question, machines=all_machines(), probe=probe(spec, compiled=compiled) if probed else None
    )
    # The guides speak of adapters, and have nothing to say of a model trained whole.
    advice = [] if spec.lora.full else advise(_advised(spec, shape, load))
    return answer(question, title=_title(spec), advice=advice, notes=notes)


def question_of(
    spec: TrainSpec, *, done_steps: int = 0, cache: LookupCache | None = None
) -> tuple[Question, list[str]]:
    """What a plan of `spec` is asked, for its own machine alone, and notes for the reader.

    Several plans that share a `cache` read the same base and data once. Raises GraftlabError.
    """
    resolve_auto(spec)
    cache = cache or LookupCache()
    base = cache.base(spec)
    notes = list(cache.documents(spec).notes)
    if kinds := spec.model.stateful_layers():
        notes.append(
            f"Of its {', '.join(kinds)} layers the weights are counted, but not what they keep for "
            "the backward pass: leave room in memory."
        )
    knobs = Knobs(
        spec.batch_size,
        spec.accumulate,
        0 if spec.lora.full else spec.lora.rank,
        spec.packing.max_length,
        settings_of(spec, notes),
    )

    @lru_cache
    def shape_at(rank: int) -> Shape:
        return shape_of(base, spec, rank)

    def load_at(turned: Knobs) -> Workload:
        return cache.workload(
            spec,
            batch_size=turned.batch_size,
            accumulate=turned.accumulate,
            max_length=turned.max_length,
        )

    compiled = _compiles_there(spec, load_at(knobs), shape_at(knobs.rank).parameters)
    knobs = replace(knobs, settings=replace(knobs.settings, compiled=compiled))
    precision = knobs.settings.precision
    question = Question(
        knobs=knobs,
        shape_at=shape_at,
        load_at=load_at,
        machine=spec.machine,
        machines={},
        limits=spec.budget,
        dtype=precision.removesuffix("-mixed"),
        measured_peak=cache.matrix_peak(precision) if spec.machine.kind == "cpu" else None,
        max_minutes=spec.max_minutes,
        done_steps=done_steps,
    )
    return question, notes


def settings_of(spec: TrainSpec, notes: list[str]) -> Settings:
    """What memory depends on; `notes` is added to where training would be refused."""
    import torch

    from graftlab.models.arithmetic import product_dtype
    from graftlab.training.precision import Precision, resolve

    name, processor = spec.precision.name, torch.device("cpu")
    if name == "auto" and spec.machine.kind != "cpu":
        name = "bf16-mixed"
    elif name == "auto":
        name = resolve(Precision(), processor).name
    if name == "fp16-mixed" and spec.machine.kind != "cuda":
        notes.append(
            "precision=fp16-mixed needs CUDA: training is refused elsewhere (machine=h100, or "
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
        kind=spec.machine.kind,
        quantization=spec.model.storage,
        quantises=spec.model.quantises,
        keeps_little=isinstance(spec.model, HFModel | GGUFModel),
        upcast=product_dtype(processor, torch.bfloat16) == torch.float32,
    )


def compiles(spec: TrainSpec, load: Workload, parameters: int, device: torch.device) -> bool:
    """Whether training on `device` will compile its layers, as it decides (`training/run.py`)."""
    from graftlab.models.compile import plan_compile

    if spec.model.compile_obstacle is not None or (spec.compile == "auto" and spec.lora.dora):
        return False
    decided, _ = plan_compile(
        spec.compile,
        planned_steps=load.steps * spec.accumulate,
        tokens_per_step=load.tokens_per_step / spec.accumulate / load.processes,
        device=device,
        num_parameters=parameters,
    )
    return decided


def _compiles_there(spec: TrainSpec, load: Workload, parameters: int) -> bool:
    """`compiles` on the machine that is planned for, whatever this one could compile."""
    import torch

    from graftlab.models.compile import CUDA_STEPS

    if spec.machine.kind == "cpu":
        return compiles(spec, load, parameters, torch.device("cpu"))
    if spec.machine.kind != "cuda" or spec.model.compile_obstacle is not None:
        return False
    long = load.steps * spec.accumulate >= CUDA_STEPS
    return spec.compile == "on" or (spec.compile == "auto" and not spec.lora.dora and long)


def _advised(spec: TrainSpec, shape: Shape, load: Workload) -> AdvisedRun:
    rank = spec.lora.rank
    divisor = math.sqrt(rank) if spec.lora.rslora else rank
    ordered = sorted(int(length) for length in load.lengths)
    return AdvisedRun(
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
        early_stopping=bool(spec.callbacks.waiting),
        packed=spec.packing.strategy != "none" or spec.model.packing_obstacle is not None,
        compares=spec.objective.takes != "answers",
    )


def _title(spec: TrainSpec) -> str:
    length = f"{spec.max_steps} steps" if spec.max_steps else f"{spec.epochs} epochs"
    own = f"{spec.name}: " if spec.name else ""
    what = "all weights" if spec.lora.full else f"rank {spec.lora.rank}"
    return f"{own}lr {spec.lr:g}, {what}, {length}, batch {spec.batch_size} x {spec.accumulate}"
