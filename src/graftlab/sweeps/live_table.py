"""The live table of a sweep, and a line for every change where there is no terminal."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from graftlab.console import console, new_table, say
from graftlab.progress import clock
from graftlab.sweeps.jobs import Job
from graftlab.tracking.ranking import Ranking

if TYPE_CHECKING:
    from rich.table import Table

SHOWN = 16
"""Rows of the live table: all that run, then the latest that ended."""
COLOURS = {"done": "green", "failed": "red", "pruned": "yellow", "paused": "yellow"}


class LiveTable:
    """Shows jobs as the ledger has them; a context manager around the launch."""

    def __init__(self, *, live: bool | None = None, ranking: Ranking | None = None) -> None:
        """`live=None`: a table on a terminal, lines elsewhere; `ranking`: what jobs are compared
        by (default: the validation loss).
        """
        self._ranking = ranking or Ranking()
        self._began = time.monotonic()
        self._states: dict[int, str] = {}
        self._ended: list[int] = []
        self._first_steps: float | None = None
        self._live: Any = None
        self._is_live = console().is_terminal if live is None else live

    def __enter__(self) -> LiveTable:
        if self._is_live:
            from rich.live import Live

            self._live = Live(console=console(), refresh_per_second=4)
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, jobs: list[Job]) -> None:
        """Bring the display up to date."""
        for job in jobs:
            if self._states.get(job.number) == job.state:
                continue
            told_before = job.number in self._states
            self._states[job.number] = job.state
            if job.state not in ("waiting", "running"):
                self._ended.append(job.number)
                if told_before and self._live is None:
                    say(f"  {_line(job, self._ranking)}  ({self._counts(jobs)})")
        if self._live is not None:
            self._live.update(self._table(jobs))

    def _table(self, jobs: Sequence[Job]) -> Table:
        from rich.text import Text

        headings = ("job", "state", "epoch", "loss", "validation", "tokens/s")
        table = new_table(self._counts(jobs), headings, left=("job", "state"))
        by_number = {job.number: job for job in jobs}
        running = [job for job in jobs if job.state == "running"]
        latest = [by_number[n] for n in reversed(self._ended) if n in by_number]
        for job in [*running, *latest][:SHOWN]:
            told = job.progress
            table.add_row(
                job.name.removeprefix("job "),
                Text(job.state, COLOURS.get(job.state, "default")),
                _number(told.get("epoch"), "{:.2f}"),
                _number(told.get("loss"), "{:.4f}"),
                _number(told.get("valid_loss", told.get("rung_loss")), "{:.4f}"),
                _number(told.get("tokens_per_second"), "{:,.0f}"),
            )
        return table

    def _counts(self, jobs: Sequence[Job]) -> str:
        """`12 of 18 done, 2 running, 1 failed, about 3:20 left`."""
        states = Counter(job.state for job in jobs)
        parts = [f"{states['done']} of {len(jobs)} done"]
        parts += [
            f"{states[s]} {s}" for s in ("running", "paused", "pruned", "failed") if states[s]
        ]
        left = self._left(jobs)
        return ", ".join([*parts, *([f"about {left} left"] if left else [])])

    def _left(self, jobs: Sequence[Job]) -> str | None:
        """From the steps taken since this display began; a job not yet begun counts as the mean."""
        totals = [job.progress["total_steps"] for job in jobs if "total_steps" in job.progress]
        if not totals:
            return None
        mean = sum(totals) / len(totals)
        taken = sum(job.progress.get("step", 0.0) for job in jobs)
        if self._first_steps is None:
            self._first_steps = taken
        open_jobs = [job for job in jobs if job.state in ("waiting", "running")]
        left = sum(
            job.progress.get("total_steps", mean) - job.progress.get("step", 0.0)
            for job in open_jobs
        )
        fresh, seconds = taken - self._first_steps, time.monotonic() - self._began
        if fresh <= 0 or left <= 0:
            return None
        return clock(left * seconds / fresh)


def _line(job: Job, ranking: Ranking) -> str:
    """One ended job in words."""
    if job.state == "done":
        score = "" if job.score is None else f": {ranking.name} {ranking.key(job.score):.4f}"
        return f"{job.name} done{score}"
    if job.state == "failed":
        return f"{job.name} failed: {(job.error or '').splitlines()[0] if job.error else ''}"
    return f"{job.name} {job.state}"


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)
