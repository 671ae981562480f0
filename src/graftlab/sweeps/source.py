"""Where jobs come from: all points of a grid at once, or one after the other from a search."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from graftlab.sweeps.jobs import Draft, Job, Place, Rung
from graftlab.sweeps.search import Trial, propose
from graftlab.sweeps.space import Dimension, Point
from graftlab.sweeps.spec import Sweep

Compose = Callable[[Point], list[Draft]]
"""A point as jobs: one for each seed."""


@dataclass(slots=True)
class Grid:
    """Jobs that are known from the start."""

    drafts: list[Draft]
    exhausted: bool = False

    def draw(self, jobs: Sequence[Job], rungs: dict[Place, Rung], *, room: int) -> list[Draft]:
        """All of them, the first time."""
        drafts = [] if self.exhausted else self.drafts
        self.exhausted = True
        return drafts


@dataclass(slots=True)
class Search:
    """Points proposed one at a time, from what is known of all points before.

    Nothing is kept but the ledger: a search that was killed goes on with the same proposals as one
    that was not, because a proposal is a function of the points so far.
    """

    sweep: Sweep
    dimensions: Sequence[Dimension]
    compose: Compose
    seed: int = 0
    earlier: Iterable[Point] = field(default_factory=list)
    """Points that an earlier launch has tried, in their order."""
    exhausted: bool = False
    _begun: bool = False

    def draw(self, jobs: Sequence[Job], rungs: dict[Place, Rung], *, room: int) -> list[Draft]:
        """As many points as can start; first of all those that an earlier launch proposed."""
        assert self.sweep.trials is not None
        if not self._begun:
            self._begun = True
            earlier = list(self.earlier)[: self.sweep.trials]
            return [draft for point in earlier for draft in self.compose(point)]
        history = _history(jobs, rungs)
        drafts: list[Draft] = []
        while len(history) < self.sweep.trials and len(drafts) < room:
            point = propose(
                self.dimensions,
                history,
                method=self.sweep.search,
                seed=self.seed,
                number=len(history),
            )
            if point is None:  # a small space, and all of it was tried
                self.exhausted = True
                return drafts
            history.append(Trial(point=point, state="waiting"))
            drafts += self.compose(point)
        self.exhausted = len(history) >= self.sweep.trials
        return drafts


def _history(jobs: Sequence[Job], rungs: dict[Place, Rung]) -> list[Trial]:
    """Points in the order they were first tried; the replicates of one by their mean."""
    grouped: dict[tuple[tuple[str, str], ...], list[Job]] = {}
    for job in jobs:
        point = {key: value for key, value in job.swept.items() if key != "seed"}
        grouped.setdefault(tuple(point.items()), []).append(job)
    return [_trial(dict(point), group, rungs) for point, group in grouped.items()]


def _trial(point: Point, jobs: Sequence[Job], rungs: dict[Place, Rung]) -> Trial:
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
