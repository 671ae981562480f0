"""Where the jobs of a tuning come from: round after round, decided from the ledger.

What a round trains is settled in the ledger as a fact before its jobs are entered, so that a search
that was killed goes on with the same rounds, whatever else they depended on (time, a budget).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean

from graftlab.sweeps.jobs import Job, NewJob, Place, Rung
from graftlab.sweeps.ledger import Ledger
from graftlab.sweeps.source import Compose
from graftlab.tuning.rounds import Round, State, next_round, rivals, widened
from graftlab.tuning.space import Cell, Space

TIME = "tune seconds"
NOTED_SECONDS = 10.0
"""Between two notes of the time in the ledger."""
NO_LIMIT = 10**12
MOST_PAIRS = 2
"""Pairs of close rivals that get further seeds, should the first of them fall behind."""
OPEN = ("waiting", "running", "paused")
"""States of jobs that have not ended."""


@dataclass(slots=True, kw_only=True)
class Tuner:
    """The source of a launch whose jobs are cells of a space."""

    ledger: Ledger
    space: Space
    """As it was before anything was seen."""
    epochs: Mapping[int, int]
    """Steps -> epochs, of lengths that are whole ones."""
    share: float
    """Of the grid's steps, that may be spent."""
    hours: float | None = None
    """That may be spent, by what the steps so far have taken."""
    most: int | None = None
    """Runs that may be started at most."""
    seeds: int = 1
    """With how many seeds the two best are trained where they are close; beyond `share`."""
    compose: Compose
    base_loss: Callable[[], float | None]
    """The loss of the base alone, once a job has measured it."""
    seconds: float = 0.0
    """That launches of this tuning have taken so far."""
    first_seed: int = 0
    """The seed of all other runs."""
    exhausted: bool = False
    _looked: float | None = None
    _noted: float = 0.0
    _round: int = 0
    _drafts: dict[tuple[Cell, int], NewJob] = field(default_factory=dict)
    """What was entered by this launch so far: (cell, place of its seed) -> job."""
    _before: tuple[int, dict[tuple[Cell, int], NewJob]] = (0, {})

    def wants(self, job: Job) -> bool:
        """Whether a job that is known already may be one of its cells."""
        keys = {*(axis.key for axis in self.space.axes), "epochs", "max_steps", "seed"}
        return job.swept.keys() <= keys

    def draw(self, jobs: Sequence[Job], rungs: dict[Place, Rung], *, room: int) -> list[NewJob]:
        """The jobs of the next round, once all of the last one have ended."""
        self._before = self._round, dict(self._drafts)
        self._count_time()
        known = {job.identity: job for job in jobs}
        own = [known.get(draft.identity) for draft in self._drafts.values()]
        if any(job is None or job.state in OPEN for job in own):
            return []
        following = self._settled(jobs)
        if following is None:
            self.exhausted = True
            return []
        self._round += 1
        return [self._draft(cell, following.seed) for cell in following.cells]

    def withdraw(self) -> None:
        (self._round, self._drafts), self.exhausted = self._before, False

    def seen(self, jobs: Sequence[Job]) -> dict[Cell, float]:
        """Cell -> score of all that have ended, the mean over its seeds; not a number where a run
        failed or diverged.
        """
        known = {job.identity: job for job in jobs}
        found: dict[Cell, list[float]] = {}
        for (cell, _), draft in self._drafts.items():
            job = known.get(draft.identity)
            if job is not None and job.state not in OPEN:
                found.setdefault(cell, []).append(math.nan if job.score is None else job.score)
        return {cell: fmean(scores) for cell, scores in found.items()}

    @property
    def replicates(self) -> list[Cell]:
        """Cells that were trained with further seeds, once for each."""
        return [cell for cell, seed in self._drafts if seed]

    def job(self, cell: Cell, jobs: Sequence[Job]) -> Job | None:
        """The job that has trained a cell."""
        draft = self._drafts.get((cell, 0))
        return next((job for job in jobs if draft and job.identity == draft.identity), None)

    def untrained(self, seen: Mapping[Cell, float]) -> float:
        """The loss of the base; the worst that was seen where no job has measured it."""
        base = self.base_loss() if seen else None
        return max(filter(math.isfinite, seen.values()), default=0.0) if base is None else base

    def reached(self, jobs: Sequence[Job]) -> Space:
        """The space with the learning rates that the ladder has opened."""
        return widened(self.space, self.seen(jobs))

    def _settled(self, jobs: Sequence[Job]) -> Round | None:
        """The next round, as it was settled; decided now where it was not.

        An end is never settled: the same line with a larger budget goes on.
        """
        key = f"round {self._round} of {self.space.identity}"
        told = self.ledger.fact(key)
        if told is None:
            found = self._decided(jobs)
            if found is None:
                return None
            cells = [[list(cell.config), cell.steps] for cell in found.cells]
            told = self.ledger.settled_fact(key, [found.kind, cells, found.seed])
        kind, cells, seed = told
        return Round(kind, [Cell(tuple(config), steps) for config, steps in cells], seed)

    def _decided(self, jobs: Sequence[Job]) -> Round | None:
        seen = self.seen(jobs)
        space = widened(self.space, seen)
        base = self.untrained(seen)
        spent = space.bill(list(seen))
        in_time = self._left_in_time(spent + sum(cell.steps for cell in self.replicates))
        left = min(int(self.share * space.grid_steps) - spent, in_time)
        found = next_round(State(space, seen, base, left)) or self._seeds(space, seen, base)
        if found is not None and found.kind == "seeds" and space.longest > in_time:
            return None
        room = None if self.most is None else self.most - len(self._drafts)
        if found is None or room is None:
            return found
        return replace(found, cells=found.cells[:room]) if room > 0 else None

    def _left_in_time(self, spent: int) -> int:
        """Steps that the hours left are expected to pay for."""
        if self.hours is None or not spent or not self.seconds:
            return NO_LIMIT
        return int((3600 * self.hours - self.seconds) * spent / self.seconds)

    def _seeds(self, space: Space, seen: Mapping[Cell, float], base: float) -> Round | None:
        """A further seed for the two best where they are close, as long as one of them lacks it."""
        pair = rivals(space, seen, base=base)
        for seed in range(1, self.seeds):
            cells = [cell for cell in pair if (cell, seed) not in self._drafts]
            if cells and len(self.replicates) < MOST_PAIRS * 2 * (self.seeds - 1):
                return Round("seeds", cells, seed)
        return None

    def _count_time(self) -> None:
        """Add the time since the last look; the ledger keeps it for later launches."""
        now = time.monotonic()
        if self._looked is None:
            self.seconds = float(self.ledger.fact(TIME) or 0.0)
        else:
            self.seconds += now - self._looked
        self._looked = now
        if self.seconds - self._noted > NOTED_SECONDS:
            self._noted = self.seconds
            self.ledger.put(TIME, self.seconds)

    def _draft(self, cell: Cell, seed: int) -> NewJob:
        """The job of a cell, going on from the longest shorter one of its configuration."""
        point = self.space.point(cell, self.epochs)
        (draft,) = self.compose(point | ({"seed": str(self.first_seed + seed)} if seed else {}))
        shorter = [
            c
            for c, other in self._drafts
            if c.config == cell.config
            and other == seed
            and self.space.shared.get((c.steps, cell.steps))
        ]
        if shorter:
            trunk = max(shorter, key=lambda c: self.space.shared[c.steps, cell.steps])
            draft = replace(
                draft,
                trunk=self._drafts[trunk, seed].identity,
                branch_step=self.space.shared[trunk.steps, cell.steps],
            )
        self._drafts[cell, seed] = draft
        return draft
