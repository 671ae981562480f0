"""What a training run is made of: the schema behind `train`, `plan` and every job of a sweep."""

from __future__ import annotations

from dataclasses import dataclass, field

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
from graftlab.generation.sampling import Generation
from graftlab.machine import Machine
from graftlab.models.base import ModelSpec
from graftlab.objectives.base import Objective
from graftlab.packing.plan import Packing
from graftlab.registry import name_of
from graftlab.tracking.loggers import Loggers
from graftlab.tracking.ranking import LOSS, Ranking, ranking_by
from graftlab.training.budget import Limits
from graftlab.training.checkpoint import Checkpointing
from graftlab.training.optimizers.base import OptimizerSpec
from graftlab.training.precision import Precision
from graftlab.training.schedule import Schedule
from graftlab.training.trainer import TrainerSpec
from graftlab.training.watch import Callbacks


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
    machine: Machine = field(default_factory=Machine)
    budget: Limits = field(default_factory=Limits)
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
        self.callbacks.check_ranking(self.ranking)
        self._check_quantization()
        self._check_objective()
        if self.lora.full and getattr(self.optimizer, "lora_plus_ratio", None) is not None:
            raise ConfigError(
                "optimizer.lora_plus_ratio is the rate of an adapter's matrices B, and lora=none "
                "has none: leave it out."
            )
        if self.lora.full and self.trainer.strategy == "fsdp2":
            raise ConfigError(
                "trainer=fsdp2 shards a frozen base, and lora=none trains all of it: use "
                "trainer=ddp, whose processes each hold the whole model."
            )

    @property
    def ranking(self) -> Ranking:
        """By what steps are told better and worse. Raises ConfigError where nothing measures it."""
        if self.checkpoint.by == LOSS:
            return Ranking()
        return ranking_by(self.checkpoint.by, self.callbacks.measures(), key="checkpoint.by")

    def _check_quantization(self) -> None:
        """Codes are frozen, and torch cannot cut them into shards."""
        if not self.lora.full and self.trainer.strategy != "fsdp2":
            return
        model = self.model
        asked = f"quantization={name_of(model.quantization)}"
        if not model.quantization.title:
            if not model.on_disk or not model.storage.title:
                return
            asked = f"{model.name} comes in {model.storage.title}: it"
        if self.lora.full:
            raise ConfigError(
                f"{asked} stores the base as codes, which are not trained, and lora=none trains "
                "every weight: train an adapter, or take full-precision weights."
            )
        if self.trainer.strategy == "fsdp2":
            raise ConfigError(
                f"trainer=fsdp2 shards weights, and {asked} stores codes, which are not cut up: "
                "use trainer=ddp, whose processes each hold the whole base."
            )

    def _check_objective(self) -> None:
        if self.objective.asks_base() and self.lora.full:
            raise ConfigError(
                "the objective keeps to the base, which is the adapter switched off, and lora=none "
                "trains the base itself: give objective.teacher=FOLDER (the same model again, "
                "frozen), or train an adapter."
            )
        key, validation = self.objective.key_needing_validation(), self.callbacks.validation
        if key is not None and validation.every_epochs is None and validation.every_steps is None:
            raise ConfigError(
                f"objective.{key} is kept by validations, and there is only one at the end: give "
                "callbacks.validation.every_epochs=1 or every_steps=N."
            )
