"""What a logger is told of a run, and the forms in which it is told."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from graftlab.tracking.result import Result

Metrics = dict[str, float]


class Tracker(ABC):
    """Where rows and samples go besides the run folder."""

    replays = False
    """Whether a resumed run sends the rows before its checkpoint again."""
    where = ""
    """What people are told about where to look."""

    @abstractmethod
    def log(self, row: Metrics) -> None:
        """One row of the history, at `row["step"]`."""

    @abstractmethod
    def samples(self, rows: Sequence[dict[str, Any]]) -> None:
        """Sampled replies: dictionaries with the keys step, prompt, base, adapter and expected."""

    @abstractmethod
    def paused(self) -> None:
        """The run's sweep has set it aside, if only for now: called before `finish`."""

    @abstractmethod
    def conclude(self, result: Result) -> None:
        """The run is finished: what it achieved, and where its best adapter is."""

    @abstractmethod
    def finish(self, exit_code: int) -> None:
        """Flush and close; called however the run ended."""


def final(result: Result) -> dict[str, float | None]:
    """The numbers by which finished runs are compared."""
    change: dict[str, float | None] = {}
    if result.interval is not None:  # of best_valid_loss - baseline, 95 %
        low, high = result.interval
        change = {"change_low": low, "change_high": high, "valid_documents": result.valid_documents}
    return {
        "best_valid_loss": result.score,
        "baseline": result.baseline,
        "best_step": result.best_step,
        "steps": result.steps,
        "trainable_parameters": result.trainable_parameters,
        "peak_rss_mb": result.peak_rss_mb,
        **change,
        **{f"best_{name}": value for name, value in result.metrics.items()},
    }
