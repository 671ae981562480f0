"""The observer of a sweep's job: progress to the ledger, verdicts from it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from graftlab.sweeps.jobs import Job
from graftlab.sweeps.ledger import Ledger, let_go_on, read_rungs
from graftlab.sweeps.rules import Rules
from graftlab.tracking.history import Row
from graftlab.training.observer import Observer

EVERY_SECONDS = 1.0
"""Between two reports of progress; each costs a write of the ledger."""
TOLD = ("epoch", "loss", "valid_loss", "rung_loss", "tokens_per_second")


class Watcher(Observer):
    """Tells the ledger how a job is getting on, and asks it at every rung."""

    def __init__(
        self,
        ledger: Ledger,
        job: Job,
        rules: Rules,
        *,
        branches: frozenset[int] = frozenset(),
        keep: Callable[[int, Path], None] = lambda step, path: None,
    ) -> None:
        """`branches`: steps whose checkpoints other jobs go on from, and `keep` keeps."""
        self.ledger, self.job, self.rules = ledger, job, rules
        self.keeps, self.keep = branches, keep
        self.progress = dict(job.progress)
        self._told, self._total = 0.0, 0

    def starts(self, *, total_steps: int, steps_per_epoch: int, step: int) -> None:
        steps = self.rules.steps(steps_per_epoch=steps_per_epoch, total_steps=total_steps)
        self.rungs, self._total = frozenset(steps), total_steps
        self.progress |= {"total_steps": total_steps, "step": step}
        self._tell()

    def after_step(self, row: Row) -> None:
        self.progress |= {"step": row["step"]} | {k: row[k] for k in TOLD if k in row}
        if (
            time.monotonic() - self._told >= EVERY_SECONDS
            or "valid_loss" in row
            or "rung_loss" in row
        ):
            self._tell()

    def saved(self, step: int, path: Path) -> None:
        if step in self.keeps:
            self.keep(step, path)

    def reached(self, step: int, valid_loss: float) -> None:
        self.ledger.reach(self.job.number, (self._total, step), valid_loss)

    def verdict(self, step: int) -> str | None:
        with self.ledger.writing() as db:
            place = (self._total, step)
            reason = self.rules.verdict(self.job.number, place, read_rungs(db))
            if reason is None:
                let_go_on(db, self.job.number, step)
        return reason

    def _tell(self) -> None:
        self._told = time.monotonic()
        self.ledger.tell(self.job.number, self.progress)
