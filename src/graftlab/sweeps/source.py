"""Where jobs come from: all points of a grid at once, or one after the other from a search."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from graftlab.sweeps.jobs import Job, NewJob, Place, Rung
from graftlab.sweeps.search import propose
from graftlab.sweeps.space import Dimension, Key, Point, key_of
from graftlab.sweeps.spec import Sweep
from graftlab.sweeps.study import Trial

Compose = Callable[[Point], list[NewJob]]
"""A point as jobs: one for each seed."""


class Source(Protocol):
    """What a launch asks for jobs."""

    exhausted: bool
    """Whether no further job will come."""

    def wants(self, job: Job) -> bool:
        """Whether a job that an earlier launch has entered is one of them."""

    def draw(self, jobs: Sequence[Job], rungs: dict[Place, Rung], *, room: int) -> list[NewJob]:
        """Jobs to enter now, from all that the ledger has; `room` of them can start at once."""

    def withdraw(self) -> None:
        """What was drawn last was not entered, as others have entered jobs meanwhile."""


@dataclass(slots=True)
class Grid:
    """Jobs that are known from the start."""

    drafts: list[NewJob]
    exhausted: bool = False

    def wants(self, job: Job) -> bool:
        return any(job.identity == draft.identity for draft in self.drafts)

    def draw(self, jobs: Sequence[Job], rungs: dict[Place, Rung], *, room: int) -> list[NewJob]:
        """All of them, the first time."""
        drafts = [] if self.exhausted else self.drafts
        self.exhausted = True
        return drafts

    def withdraw(self) -> None:
        self.exhausted = False


@dataclass(slots=True)
class Search:
    """Points proposed one at a time, from what is known of all points before.

    The ledger is the record: what an earlier launch has tried, or another tries at the same time,
    is adopted before anything is proposed, and a proposal is a function of the points so far. So a
    search that was killed goes on, and several share their trials.

    Proposals are kept here too: one whose jobs are known already (`lr=1e-3` after `lr=0.001`) adds
    nothing to the ledger, and counts as tried all the same.
    """

    sweep: Sweep
    dimensions: Sequence[Dimension]
    compose: Compose
    seed: int = 0
    exhausted: bool = False
    _tried: dict[Key, list[str]] = field(default_factory=dict)
    """Point -> identities of its jobs, in the order in which points were first tried."""
    _before: dict[Key, list[str]] = field(default_factory=dict)
    """The same before the last draw."""

    def draw(self, jobs: Sequence[Job], rungs: dict[Place, Rung], *, room: int) -> list[NewJob]:
        """What others have tried, if there is any that is new here, else as many points as can
        start."""
        assert self.sweep.trials is not None
        self._before = dict(self._tried)
        drafts = self._adopt(jobs)
        room = 0 if drafts else room
        while len(self._tried) < self.sweep.trials and len(drafts) < room:
            point = propose(
                self.dimensions,
                self._history(jobs, rungs),
                method=self.sweep.search,
                seed=self.seed,
                number=len(self._tried),
            )
            if point is None:  # a small space, and all of it was tried
                self.exhausted = True
                return drafts
            drafts += self._try(point)
        self.exhausted = len(self._tried) >= self.sweep.trials
        return drafts

    def withdraw(self) -> None:
        """What others have entered counts first: one point more might be one too many."""
        self._tried, self.exhausted = self._before, False

    def wants(self, job: Job) -> bool:
        """A job of a space with other keys is no trial of this one."""
        return self._point(job).keys() <= {dimension.key for dimension in self.dimensions}

    def _adopt(self, jobs: Sequence[Job]) -> list[NewJob]:
        drafts: list[NewJob] = []
        for job in jobs:
            if len(self._tried) == self.sweep.trials:
                break
            point = self._point(job)
            if self.wants(job) and key_of(point) not in self._tried:
                drafts += self._try(point)
        return drafts

    def _try(self, point: Point) -> list[NewJob]:
        drafts = self.compose(point)
        self._tried[key_of(point)] = [draft.identity for draft in drafts]
        return drafts

    def _point(self, job: Job) -> Point:
        """What a job tries: its swept values, without the seed of a replicate."""
        keys = {dimension.key for dimension in self.dimensions}
        return {k: v for k, v in job.swept.items() if k != "seed" or k in keys}

    def _history(self, jobs: Sequence[Job], rungs: dict[Place, Rung]) -> list[Trial]:
        """All points so far; the replicates of one by their mean."""
        known = {job.identity: job for job in jobs}
        return [
            _trial(dict(point), [known[name] for name in names if name in known], rungs)
            for point, names in self._tried.items()
        ]


def _trial(point: Point, jobs: Sequence[Job], rungs: dict[Place, Rung]) -> Trial:
    if not jobs:
        return Trial(point=point, state="waiting")
    scores = [job.score for job in jobs if job.score is not None]
    losses = {
        step: rung.losses[job.number]
        for job in jobs[:1]
        for (_, step), rung in rungs.items()
        if job.number in rung.losses
    }
    states = [job.state for job in jobs]
    state = next((s for s in ("running", "waiting", "failed") if s in states), states[0])
    score = sum(scores) / len(scores) if scores and state == "done" else None
    return Trial(point=point, score=score, state=state, losses=losses)
