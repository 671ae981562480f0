"""Experiment loggers: W&B and TensorBoard, in any combination, beside the run's own CSV."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from graftlab.errors import ConfigError, require_choice, require_range
from graftlab.tracking.tensorboard import TensorBoardTracker
from graftlab.tracking.tracker import Metrics, Tracker

LONGEST_TAG, LONGEST_NAME = 64, 128
"""Letters that W&B takes in a tag, and in the name of a project, group, kind or run."""
FORBIDDEN = "/\\#?%:"
"""Characters that W&B refuses in the name of a project."""


@dataclass(kw_only=True, slots=True)
class WandbLogs:
    """Weights & Biases; offline when there is no key, and never a prompt."""

    project: str = "graftlab"
    """W&B project."""
    entity: str | None = None
    """W&B team or user; null for the account's default."""
    group: str | None = None
    """Run group; null puts the jobs of one multirun into one group."""
    job_type: str | None = None
    """Kind of run; null: train, or sweep for the jobs of one."""
    tags: list[str] = field(default_factory=list)
    """Run tags; the jobs of a sweep also have its name, and `pruned` where it applies."""
    artifacts: bool = False
    """Also log the best adapter as an artifact, 2 to 200 MB a run."""
    mode: str = "auto"
    """auto (online with a key, else offline), online, offline or disabled."""
    finish_timeout: float = 60.0
    """Seconds that a run waits at its end for what is not sent yet; `wandb sync` sends the rest."""

    def __post_init__(self) -> None:
        require_choice("logger.wandb.mode", self.mode, ("auto", "online", "offline", "disabled"))
        require_range("logger.wandb.finish_timeout", self.finish_timeout, above=0)
        for key in ("project", "entity", "group", "job_type"):
            name = getattr(self, key)
            if name is not None and not 1 <= len(name) <= LONGEST_NAME:
                raise ConfigError(
                    f"logger.wandb.{key}: W&B takes names of 1 to {LONGEST_NAME} letters, "
                    f"not {name!r}."
                )
        if wrong := sorted(set(self.project) & set(FORBIDDEN)):
            raise ConfigError(
                f"logger.wandb.project={self.project}: W&B takes no {' '.join(wrong)} in the name "
                "of a project."
            )
        for tag in self.tags:
            if not 1 <= len(tag) <= LONGEST_TAG:
                raise ConfigError(
                    f"logger.wandb.tags: W&B takes tags of 1 to {LONGEST_TAG} letters, not {tag!r}."
                )

    def join(self, sweep: str) -> None:
        """Be one of the jobs of `sweep`, but for what was chosen otherwise."""
        self.group = self.group or sweep
        self.job_type = self.job_type or "sweep"
        self.tags = [*dict.fromkeys([*self.tags, sweep[:LONGEST_TAG]])]


@dataclass(kw_only=True, slots=True)
class TensorBoardLogs:
    """TensorBoard event files in `tensorboard/` of the run folder."""


@dataclass(kw_only=True, slots=True)
class Loggers:
    """`logger=csv|wandb|tensorboard`, or several: `logger=[wandb,tensorboard]`.

    `train_log.csv` is always written: it is the run's own memory and what resuming reads.
    """

    wandb: WandbLogs | None = None
    """Log to Weights & Biases."""
    tensorboard: TensorBoardLogs | None = None
    """Log to TensorBoard."""

    def check(self) -> None:
        """Raise ConfigError for what W&B would refuse; ask in the background whether it answers."""
        if self.wandb is not None:
            from graftlab.tracking.wandb_tracker import check_mode

            check_mode(self.wandb.mode)

    def open(
        self, folder: Path, *, name: str, config: dict[str, Any], history: Sequence[Metrics]
    ) -> list[Tracker]:
        """Start the configured loggers; `history` holds the rows a resumed run already has."""
        trackers: list[Tracker] = []
        if self.wandb is not None:
            from graftlab.tracking.wandb_tracker import WandbTracker

            trackers.append(WandbTracker(self.wandb, folder, name=name, config=config))
        if self.tensorboard is not None:
            done = int(history[-1]["step"]) if history else -1
            trackers.append(
                TensorBoardTracker(folder / "tensorboard", first_step=done + 1, config=config)
            )
        for tracker in trackers:
            for row in history if tracker.replays else ():
                tracker.log(row)
        return trackers
