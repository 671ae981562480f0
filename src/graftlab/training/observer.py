"""Who looks over a run's shoulder: a sweep, which is told of progress and may pause the run.

    starts          once the steps are known        -> from then on `rungs` holds
    after_step      after every optimizer step
    saved           after every checkpoint; of a step in `keeps` again when the run goes on there
    reached         after validation at a rung; where several adapters train together, all have
                    reached it before any verdict is asked for
    verdict         after saving at a rung: go on, or pause
    owes            where a run goes on from a rung: was it stopped before its verdict?

A paused run lies in its folder like one that was stopped by a signal, and goes on the same way.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from graftlab.tracking.history import Row


class Observer:
    """Watches nothing and lets every run go on; a sweep's own overrides what it needs."""

    rungs: Collection[int] = ()
    """Optimizer steps after which the adapter is validated for the observer and saved. The loss is
    told as `rung_loss`; it never makes a checkpoint the best, so the run's result is the same."""
    keeps: Collection[int] = ()
    """Optimizer steps after which the run is also saved."""

    def travels(self) -> Sequence[str]:
        """Words from which each process of a run of several makes such an observer.

        The first is the import path of what makes it, as `package.module:name`, called with the
        others and whether it is in the first process.

        The first process is told and asked for all; the others only save and validate with it.
        """
        return ()

    def starts(self, *, total_steps: int, steps_per_epoch: int, step: int) -> None:
        """The run has `total_steps` optimizer steps and goes on behind `step` (0: it is new)."""

    def after_step(self, row: Row) -> None:
        """One finished optimizer step; `row` is its row of the log."""

    def saved(self, step: int, path: Path) -> None:
        """A checkpoint of `step` lies at `path`; older ones may be removed after this."""

    def reached(self, step: int, valid_loss: float) -> None:
        """A rung was reached with this validation loss, in nats per trained token."""

    def verdict(self, step: int) -> str | None:
        """At a rung before the last step: None to go on, or why the run is paused."""
        return None

    def owes(self, step: int) -> bool:
        """Whether the verdict at this rung, where the run goes on, has still to be given."""
        return False
