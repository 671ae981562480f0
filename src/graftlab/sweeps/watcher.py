"""The observer of a sweep's job: progress to the ledger, verdicts from it."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from graftlab.sweeps.jobs import Job
from graftlab.sweeps.ledger import Ledger
from graftlab.sweeps.prefix_sharing import keep_branch
from graftlab.sweeps.rules import Rules
from graftlab.sweeps.tables import let_go_on, read_rungs
from graftlab.tracking.folder import RunFolder
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
        branches: frozenset[int],
        tells: bool = True,
        looks: bool = False,
    ) -> None:
        """`branches`: steps whose checkpoints are kept, as other jobs go on from them.

        `tells` is off in all but the first process of a run of several. `looks`: for steps that a
        widened line has added meanwhile; processes of a run of several might see different ones.
        """
        self.ledger, self.job, self.rules = ledger, job, rules
        self.keeps, self.tells, self.looks = branches, tells, looks
        self.progress = dict(job.progress)
        self._told, self._total = 0.0, 0

    def travels(self) -> Sequence[str]:
        # Rules and steps go along: processes that looked for themselves might see different ones,
        # and wait for each other for ever.
        known = {
            "sweep": str(self.ledger.folder.resolve()),
            "job": self.job.number,
            "worker": self.job.worker,
            "rules": asdict(self.rules),
            "branches": sorted(self.keeps),
        }
        return f"{__name__}:{arrived.__name__}", json.dumps(known)

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
            keep_branch(RunFolder(self.ledger.folder / self.job.folder), step, path)

    def reached(self, step: int, valid_loss: float) -> None:
        self.ledger.reach(self.job.number, (self._total, step), valid_loss)

    def verdict(self, step: int) -> str | None:
        with self.ledger.writing() as db:
            place = (self._total, step)
            reason = self.rules.verdict(self.job.number, place, read_rungs(db))
            if reason is None:
                let_go_on(db, self.job.number, step)
        return reason

    def owes(self, step: int) -> bool:
        rung = self.ledger.rungs().get((self._total, step))
        if rung is None or self.job.number not in rung.losses:
            return False
        return self.job.number not in rung.promoted

    def _tell(self) -> None:
        if self.tells:
            self._told = time.monotonic()
            self.ledger.tell(self.job.number, self.progress, worker=self.job.worker)
        if self.looks:
            self.keeps = _kept(self.ledger, self.job, self.rules)


def watch_job(ledger: Ledger, job: Job, rules: Rules) -> Watcher:
    """The observer of a job, which keeps the checkpoints that other jobs branch from."""
    return Watcher(ledger, job, rules, branches=_kept(ledger, job, rules), looks=True)


def _kept(ledger: Ledger, job: Job, rules: Rules) -> frozenset[int]:
    return ledger.branch_steps(job.number) | frozenset(rules.keeps)


def arrived(words: str, *, first: bool) -> Watcher:
    """The observer in a process of a run of several, from what `Watcher.travels` said."""
    known = json.loads(words)
    ledger = Ledger(Path(known["sweep"]))
    job = next(job for job in ledger.jobs() if job.number == known["job"])
    job = replace(job, worker=known["worker"])  # whose this start is, whoever has the job by now
    rules, branches = Rules(**known["rules"]), frozenset(known["branches"])
    return Watcher(ledger, job, rules, branches=branches, tells=first)
