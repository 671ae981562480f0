"""Experiment loggers: W&B, TensorBoard, CSV, in any combination."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(kw_only=True, slots=True)
class WandbLogs:
    """Weights & Biases; offline when there is no key, and never a prompt."""

    project: str = "graftlab"
    """W&B project."""
    entity: str | None = None
    """W&B team or user; null for the account's default."""
    group: str | None = None
    """Run group; null puts the jobs of one multirun into one group."""
    tags: list[str] = field(default_factory=list)
    """Run tags."""
    mode: str = "auto"
    """auto (online with a key, else offline), online, offline or disabled."""


@dataclass(kw_only=True, slots=True)
class TensorBoardLogs:
    """TensorBoard event files in `tensorboard/` of the run folder."""


@dataclass(kw_only=True, slots=True)
class Loggers:
    """`logger=csv|wandb|tensorboard`, or several: `logger=[wandb,tensorboard]`.

    `train_log.csv` is always written: it is the run's own memory and what resuming reads.
    """

    wandb: WandbLogs | None = None
    tensorboard: TensorBoardLogs | None = None
