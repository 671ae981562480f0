"""Which runs may train together: the same base, data, row order and precision, and LoRA on linears.

Nothing heavy is imported here, so a sweep can be sorted before anything is loaded.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import TYPE_CHECKING

from graftlab.adapters.targets import EMBEDDING
from graftlab.registry import dump
from graftlab.training.observer import Observer

if TYPE_CHECKING:
    from graftlab.tracking.folder import RunFolder
    from graftlab.tracking.result import Result
    from graftlab.training.spec import TrainSpec

FREE = (
    "lora", "optimizer", "schedule", "lr", "epochs", "max_steps", "max_minutes",
    "callbacks", "logger", "generation", "checkpoint", "machine", "budget",
    "compile", "resume", "name", "run_dir",
)  # fmt: skip
"""Keys in which runs that train together may differ, beside the objective's `JOINT`; all others
must be equal."""
HEAD = re.compile(r"(^|\.)(lm_head|embed_out|output)$")


@dataclass(frozen=True, slots=True, kw_only=True)
class JointJob:
    """One run to be trained jointly with others."""

    spec: TrainSpec
    folder: RunFolder
    observer: Observer = field(default_factory=Observer)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEnded:
    """What became of one job: a result, or why there is none.

    `error` is Paused or Interrupted (saved; resuming goes on) or a GraftlabError (it failed).
    """

    index: int
    result: Result | None = None
    error: Exception | None = None
    shared: bool = False
    """Whether the error is of what the jobs share; alone this one may train."""


Joiners = Callable[[int, int], Sequence[JointJob]]
"""Asked between steps who else comes. Those who would train next stand at the first number's step,
and there are as many as the second says; whoever joins behind them catches up first."""


def no_joiners(step: int, active: int) -> Sequence[JointJob]:
    """The `Joiners` of jobs that stay among themselves."""
    return ()


def unfit(specs: Sequence[TrainSpec]) -> dict[int, str]:
    """Index -> why this run cannot train jointly with any other."""
    reasons = {index: _obstacle(spec) for index, spec in enumerate(specs)}
    return {index: reason for index, reason in reasons.items() if reason is not None}


def group(specs: Sequence[TrainSpec]) -> list[list[int]]:
    """Indices of runs that can train together, in order; those that are `unfit` are left out.

    A run that shares base, data, order, batches and precision with no other is alone in its group.
    """
    groups: dict[str, list[int]] = {}
    left_out = unfit(specs)
    for index, spec in enumerate(specs):
        if index not in left_out:
            groups.setdefault(_shared(spec), []).append(index)
    return list(groups.values())


def _shared(spec: TrainSpec) -> str:
    """Everything that must be equal, as text."""
    content = {key: value for key, value in dump(spec).items() if key not in FREE}
    content["date"] = spec.date or date.today().isoformat()  # as `settle_date` will set it
    content["trainer"] = {k: v for k, v in content["trainer"].items() if k != "log_every"}
    if spec.objective.needs_reference:
        content["reference"] = spec.lora.from_run
    if spec.callbacks.measures():  # those of one group ask the same prompts
        chosen = [own for own in spec.callbacks.chosen.values() if own.measures()]
        content["measured"] = [*map(dump, chosen), dump(spec.generation)]
    own = spec.objective.JOINT
    content["objective"] = {k: v for k, v in content["objective"].items() if k not in own}
    return json.dumps(content, sort_keys=True, default=str)


def _obstacle(spec: TrainSpec) -> str | None:
    lora = spec.lora
    if spec.model.joint_obstacle is not None:
        return f"model: {spec.model.joint_obstacle}"
    if lora.full:
        return "lora=none trains every weight of the base, which then cannot be shared"
    if spec.objective.teacher_path() is not None:
        return "objective.teacher: a teacher is asked by one run at a time"
    if lora.dora:
        return "lora.dora: DoRA divides by a norm of base and update, which cannot be stacked"
    if lora.modules_to_save:
        return "lora.modules_to_save: modules trained in full are not an update of a shared base"
    if lora.init == "eva":
        return "lora.init=eva: its weights are drawn from the data by one run at a time"
    if lora.trainable_tokens:
        return "lora.trainable_tokens: rows of the embedding are not an update of a shared base"
    targets = lora.targets if isinstance(lora.targets, list) else []
    outside = [name for name in targets if EMBEDDING.search(name) or HEAD.search(name)]
    if outside:
        return f"lora.targets: {', '.join(outside)} lies outside the decoder layers"
    alone = [key for key, own in spec.callbacks.chosen.items() if own.needs_lightning]
    if alone:
        return f"callbacks.{alone[0]} is a callback of Lightning's, which drives no joint training"
    if spec.trainer.strategy != "single":
        return f"trainer.strategy={spec.trainer.strategy}: joint training is one process"
    if spec.precision.name == "fp16-mixed":
        return "precision=fp16-mixed scales each run's loss by a factor of its own"
    if spec.compile == "on":
        return "compile=on: layers under several adapters are not compiled"
    return None
