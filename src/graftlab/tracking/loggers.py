"""Experiment loggers: any of the group `logger`, together, beside the run's own CSV."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from graftlab.registry import collection, group
from graftlab.tracking.tracker import Metrics, Tracker


@group("logger")
@dataclass(kw_only=True, slots=True)
class LoggerSpec(ABC):
    """One logger; its fields are the keys `logger.NAME.KEY`."""

    def check(self) -> None:
        """Raise ConfigError for what cannot be, before anything is loaded."""
        return

    def join(self, sweep: str) -> None:
        """Be one of the jobs of `sweep`, but for what was chosen otherwise."""
        return

    @abstractmethod
    def open(
        self, folder: Path, *, name: str, config: dict[str, Any], history: Sequence[Metrics]
    ) -> Tracker:
        """Start it for the run in `folder`; `history` holds the rows that a resumed run has.

        `name` is the run's for people, `config` what `run.yaml` holds.
        """


@collection("logger")
@dataclass(kw_only=True, slots=True)
class Loggers:
    """`logger=csv|wandb|tensorboard`, or several: `logger=[wandb,tensorboard]`.

    `train_log.csv` is always written: it is the run's own memory and what resuming reads.
    """

    chosen: dict[str, LoggerSpec] = field(default_factory=dict)

    def check(self) -> None:
        """Raise ConfigError for what a logger refuses."""
        for logger in self.chosen.values():
            logger.check()

    def join(self, sweep: str) -> None:
        """Tell every logger that the run is one of the jobs of `sweep`."""
        for logger in self.chosen.values():
            logger.join(sweep)

    def open(
        self, folder: Path, *, name: str, config: dict[str, Any], history: Sequence[Metrics]
    ) -> list[Tracker]:
        """Start the chosen loggers; those that want it are told the rows of `history` again."""
        trackers = [
            logger.open(folder, name=name, config=config, history=history)
            for logger in self.chosen.values()
        ]
        for tracker in trackers:
            for row in history if tracker.replays else ():
                tracker.log(row)
        return trackers
