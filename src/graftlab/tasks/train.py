"""The verb `train`: from a spec to an adapter folder and a result."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from graftlab.adapters.lora import Lora
from graftlab.data.source import DataSpec
from graftlab.errors import (
    AUTO,
    ConfigError,
    NumberOrAuto,
    WholeOrAuto,
    number_or_auto,
    require_choice,
    require_date,
    require_range,
)
from graftlab.files.disk import disk_told
from graftlab.generation.sampling import Generation
from graftlab.models.base import ModelSpec
from graftlab.objectives.base import Objective
from graftlab.packing.plan import Packing
from graftlab.planning.device import Device
from graftlab.planning.limits import Limits
from graftlab.process import prepare_process
from graftlab.registry import dump
from graftlab.sweeps.launchers.base import Launcher
from graftlab.sweeps.spec import Sweep
from graftlab.tasks.auto import resolve_auto, settle_auto
from graftlab.tasks.supply import supply
from graftlab.tracking.console import say
from graftlab.tracking.folder import RunFolder, time_limit
from graftlab.tracking.loggers import Loggers
from graftlab.tracking.result import Result
from graftlab.training.checkpoint import Checkpointing, CheckpointStore
from graftlab.training.days import settle_date
from graftlab.training.optimizers.base import OptimizerSpec
from graftlab.training.precision import Precision
from graftlab.training.schedule import Schedule
from graftlab.training.teacher import settle_key
from graftlab.training.trainer import LAUNCHED, TrainerSpec
from graftlab.training.watch import Callbacks

if TYPE_CHECKING:
    from graftlab.training.observer import Observer


KEPT = "What was saved before is whole: make room, and the same line with resume=auto goes on."
"""What people are told when the disk refuses."""


@dataclass(kw_only=True, slots=True)
class TrainSpec:
    """Everything a training run is made of; `conf/train.yaml` fills it."""

    model: ModelSpec
    data: DataSpec
    objective: Objective
    optimizer: OptimizerSpec
    precision: Precision = field(default_factory=Precision)
    packing: Packing = field(default_factory=Packing)
    lora: Lora = field(default_factory=Lora)
    schedule: Schedule = field(default_factory=Schedule)
    trainer: TrainerSpec = field(default_factory=TrainerSpec)
    callbacks: Callbacks = field(default_factory=Callbacks)
    logger: Loggers = field(default_factory=Loggers)
    generation: Generation = field(default_factory=Generation)
    checkpoint: Checkpointing = field(default_factory=Checkpointing)
    device: Device = field(default_factory=Device)
    budget: Limits = field(default_factory=Limits)
    sweep: Sweep = field(default_factory=Sweep)
    launcher: Launcher | None = None
    """Where the jobs of a sweep run; null is the group's `auto`."""
    epochs: WholeOrAuto = 3
    """Passes over the training data; auto: by the number of conversations."""
    lr: NumberOrAuto = AUTO
    """Peak learning rate; auto: by the size of the base and the adapter's scale."""
    seed: int = 0
    """Seed of data order, dropout and (unless lora.seed) initialisation."""
    batch_size: int = 1
    """Packed rows per micro-batch (and per process)."""
    accumulate: int = 1
    """Micro-batches per optimizer step."""
    max_steps: int | None = None
    """Stop after this many optimizer steps; the schedule is laid out for them."""
    max_minutes: float | None = None
    """Stop cleanly after this many minutes of training."""
    resume: str | None = None
    """auto: finish the unfinished run of this configuration; or a run folder."""
    compile: str = "auto"
    """Compile each decoder layer: auto (where the planned steps repay it), on or off."""
    date: str | None = None
    """The date that a chat template is told which asks for it; null: the day the run began."""
    name: str | None = None
    """A name for people; W&B and the card show it."""
    run_dir: str = "outputs/run"
    """Where the run writes; the command line sets it to Hydra's run folder."""

    def __post_init__(self) -> None:
        self.epochs = number_or_auto("epochs", self.epochs, whole=True)
        self.lr = number_or_auto("lr", self.lr)
        require_range("epochs", None if self.epochs == AUTO else self.epochs, least=1)
        require_range("lr", None if self.lr == AUTO else self.lr, above=0)
        require_range("seed", self.seed, least=0)
        require_range("batch_size", self.batch_size, least=1)
        require_range("accumulate", self.accumulate, least=1)
        require_range("max_steps", self.max_steps, least=1)
        require_range("max_minutes", self.max_minutes, above=0)
        require_date("date", self.date)
        require_choice("compile", self.compile, ("auto", "on", "off"))
        if self.lora.full and self.trainer.strategy == "fsdp2":
            raise ConfigError(
                "trainer=fsdp2 shards a frozen base, and lora=full trains all of it: use "
                "trainer=ddp, whose processes each hold the whole model."
            )


def run(spec: TrainSpec, *, observer: Observer | None = None) -> Result:
    """Train as configured and leave a run folder behind; a finished one is only reported.

    Raises GraftlabError (with the fix) for what the user can mend, and Interrupted after a signal
    or Paused by the observer, when the run is saved and can go on with `resume=auto`.
    """
    with disk_told(KEPT):
        return _run(spec, observer)


def _run(spec: TrainSpec, observer: Observer | None) -> Result:
    prepare_process()
    folder = RunFolder(Path(spec.run_dir))
    settle_key(spec.objective)
    if folder.finished and spec.resume:
        settle_auto(spec)  # to be compared with the run that is there
    else:
        resolve_auto(spec)
    if folder.finished and not (spec.resume and folder.goes_on(spec.max_minutes)):
        return _finished(spec, folder)
    if LAUNCHED in os.environ:  # whoever launched the ranks holds the folder
        return _train(spec, folder, observer)
    with folder.held():
        if folder.finished:
            folder.require_same(dump(spec))
        return _train(spec, folder, observer)


def _train(spec: TrainSpec, folder: RunFolder, observer: Observer | None) -> Result:
    settle_date(spec, folder)
    supply(spec.data, tell=LAUNCHED not in os.environ)
    resolve_auto(spec)  # by the documents of a recipe that is made only now
    if spec.budget.given and LAUNCHED not in os.environ:
        _keep_within_budget(spec, folder)
    if spec.trainer.needs_launch:
        from graftlab.training.ranks import launch

        folder.reopen()
        launch(spec, folder, observer)
        return Result.read(folder.path / "result.json")

    from graftlab.training.run import execute

    return execute(spec, folder, observer)


def _keep_within_budget(spec: TrainSpec, folder: RunFolder) -> None:
    """Raises ConfigError before anything is loaded; steps taken before a kill are paid already."""
    from graftlab.tasks.plan import refuse_over_budget

    last = CheckpointStore(folder.checkpoints).last()
    refuse_over_budget(spec, done_steps=last.step if last and spec.resume else 0)


def _finished(spec: TrainSpec, folder: RunFolder) -> Result:
    """The result of a finished run. Raises where something else was asked for."""
    if spec.resume is None:
        raise ConfigError(
            f"{folder.path} holds a finished run: choose another hydra.run.dir (or leave it out)."
        )
    folder.require_same(dump(spec))
    if (limit := time_limit(folder.path)) is not None:
        say(f"Ended by max_minutes={limit:g}: {folder.path} (goes on with more of them, or none).")
    else:
        say(f"Already finished: {folder.path} (train anew without resume).")
    return Result.read(folder.path / "result.json")
