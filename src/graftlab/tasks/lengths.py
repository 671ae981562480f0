"""How long the jobs of a sweep are, known before any of them starts: for trunks and their line."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from graftlab.choices import dump
from graftlab.sweeps.trunk import Length, regardless_of_length

if TYPE_CHECKING:
    from graftlab.planning.workload import Workload
    from graftlab.tasks.train import TrainSpec

DECISIVE = ("model", "data", "packing", "batch_size", "accumulate", "trainer")
"""Keys that say how many steps an epoch has."""


def lengths_of(specs: Sequence[TrainSpec]) -> list[Length] | None:
    """The length of every job, from the real token counts; the weights are not loaded.

    None where no two jobs differ in their length alone (then nothing heavy is imported), or where
    tokens can only be guessed, as the tokenizer is not on this machine. Raises GraftlabError for
    data that cannot be read.
    """
    kinds = Counter(regardless_of_length(dump(spec)) for spec in specs)
    if not any(count > 1 for count in kinds.values()):
        return None
    loads: dict[str, tuple[Workload, int]] = {}
    lengths = []
    for spec in specs:
        key = _key(spec)
        if key not in loads:
            loads[key] = _measured(spec)
        load, parameters = loads[key]
        if not load.exact:
            return None
        per_epoch = load.budget.steps_per_epoch
        compiled = _compiled(spec, load, parameters)
        lengths.append(Length(spec=spec, steps_per_epoch=per_epoch, compiled=compiled))
    return lengths


def _key(spec: TrainSpec) -> str:
    config: dict[str, Any] = dump(spec)
    return json.dumps({name: config[name] for name in DECISIVE}, sort_keys=True, default=str)


def _measured(spec: TrainSpec) -> tuple[Workload, int]:
    """Tokens and steps of an epoch, and the base's parameters."""
    from graftlab.planning.workload import Schedule, lay_out
    from graftlab.tasks.described import describe, read_documents, shape_of

    base = describe(spec)
    documents, _, _ = read_documents(spec, base)
    schedule = Schedule(
        batch_size=spec.batch_size,
        accumulate=spec.accumulate,
        epochs=1,
        max_steps=None,
        processes=spec.trainer.devices,
    )
    load = lay_out(documents, spec.packing, schedule)
    return load, shape_of(base, spec, spec.lora.rank).parameters


def _compiled(spec: TrainSpec, load: Workload, parameters: int) -> bool:
    """Whether the run will compile its layers, as it decides itself (`training/run.py`)."""
    from graftlab.models.compile import plan_compile
    from graftlab.training.device import pick_device

    if spec.compile == "off" or (spec.compile == "auto" and spec.lora.dora):
        return False
    steps = spec.max_steps or spec.epochs * load.budget.steps_per_epoch
    decided, _ = plan_compile(
        spec.compile,
        planned_steps=steps * spec.accumulate,
        tokens_per_step=load.tokens_per_step / spec.accumulate / load.processes,
        device=pick_device(spec.trainer.accelerator),
        num_parameters=parameters,
    )
    return decided
