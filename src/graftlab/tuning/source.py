"""Where the jobs of a tuning come from: round after round, decided from the ledger.

What a round trains is settled in the ledger as a fact before its jobs are entered, so that a search
that was killed goes on with the same rounds, whatever else they depended on (time, a budget).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from graftlab.sweeps.jobs import Job, NewJob, Place, Rung
from graftlab.sweeps.ledger import Ledger
from graftlab.sweeps.source import Compose
from graftlab.tuning.rounds import Round, State, next_round, widened
from graftlab.tuning.space import Cell, Space

TIME = "tune seconds"
NOTED_SECONDS = 10.0
"""Between two notes of the time in the ledger."""
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
    allowance: Callable[[Space, int], int]
    """Optimizer steps that may be spent in all, from the space and the steps spent so far."""
    most: int | None = None
    """Runs that may be started at most."""
    compose: Compose
    base_loss: Callable[[], float | None]
    """The loss of the base alone, once a job has measured it."""
    spent: int = 0
    """Optimizer steps of all that was seen when the last round was decided."""
    seconds: float = 0.0
    """That launches of this tuning have taken so far."""
    exhausted: bool = False
    _looked: float | None = None
    _noted: float = 0.0
    _round: int = 0
    _drafts: dict[Cell, NewJob] = field(default_factory=dict)
    """What was entered by this launch so far."""
    _before: tuple[int, dict[Cell, NewJob]] = (0, {})

    def wants(self, job: Job) -> bool:
        """Whether a job that is known already may be one of its cells."""
        keys = {*(axis.key for axis in self.space.axes), "epochs", "max_steps"}
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
        return [self._draft(cell) for cell in following.cells]

    def withdraw(self) -> None:
        (self._round, self._drafts), self.exhausted = self._before, False

    def seen(self, jobs: Sequence[Job]) -> dict[Cell, float]:
        """Cell -> score of all that have ended; not a number where a run failed or diverged."""
        known = {job.identity: job for job in jobs}
        found = {}
        for cell, draft in self._drafts.items():
            job = known.get(draft.identity)
            if job is not None and job.state not in OPEN:
                found[cell] = math.nan if job.score is None else job.score
        return found

    def job(self, cell: Cell, jobs: Sequence[Job]) -> Job | None:
        """The job that has trained a cell."""
        draft = self._drafts.get(cell)
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
            told = self.ledger.settled_fact(key, [found.kind, cells])
        kind, cells = told
        return Round(kind, [Cell(tuple(config), steps) for config, steps in cells])

    def _decided(self, jobs: Sequence[Job]) -> Round | None:
        seen = self.seen(jobs)
        space = widened(self.space, seen)
        self.spent = space.bill(list(seen))
        left = self.allowance(space, self.spent) - self.spent
        found = next_round(State(space, seen, self.untrained(seen), left))
        room = None if self.most is None else self.most - len(seen)
        if found is None or room is None:
            return found
        return replace(found, cells=found.cells[:room]) if room > 0 else None

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

    def _draft(self, cell: Cell) -> NewJob:
        """The job of a cell, going on from the longest shorter one of its configuration."""
        (draft,) = self.compose(self.space.point(cell, self.epochs))
        shorter = [
            c
            for c in self._drafts
            if c.config == cell.config and self.space.shared.get((c.steps, cell.steps))
        ]
        if shorter:
            trunk = max(shorter, key=lambda c: self.space.shared[c.steps, cell.steps])
            draft = replace(
                draft,
                trunk=self._drafts[trunk].identity,
                branch_step=self.space.shared[trunk.steps, cell.steps],
            )
        self._drafts[cell] = draft
        return draft
