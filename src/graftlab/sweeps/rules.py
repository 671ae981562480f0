"""Which jobs may be started now, and which are given up: decided from the ledger alone.

Whoever asks, in whatever process, gets the same answer from the same rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from graftlab.sweeps.jobs import Job, Place, Rung
from graftlab.sweeps.prefix_sharing import branch_file
from graftlab.sweeps.pruning import (
    even_steps,
    falls_behind,
    goes_on,
    last_chance,
    promotable,
    rung_steps,
)
from graftlab.sweeps.spec import Sweep
from graftlab.tracking.folder import RunFolder

Rungs = Mapping[Place, Rung]


@dataclass(frozen=True, slots=True)
class Rules:
    """How a sweep treats its jobs, as its latest launch has it."""

    pruner: str = "none"
    reduction: int = 3
    first_rung: float | None = None
    """Epochs; None: a share of each run for asha, every epoch for the median."""
    keeps: list[int] = field(default_factory=list)
    """Optimizer steps from which longer runs may go on later: every job keeps its checkpoints."""

    @classmethod
    def of(cls, sweep: Sweep) -> Rules:
        return cls(sweep.pruner, sweep.reduction, sweep.first_rung)

    def steps(self, *, steps_per_epoch: int, total_steps: int) -> list[int]:
        """Optimizer steps of the rungs of a run, none at its end."""
        length = {"steps_per_epoch": steps_per_epoch, "total_steps": total_steps}
        if self.pruner == "asha":
            return rung_steps(self.first_rung, self.reduction, **length)
        every = 1.0 if self.first_rung is None else self.first_rung
        return even_steps(every, **length) if self.pruner == "median" else []

    def verdict(self, number: int, place: Place, rungs: Rungs) -> str | None:
        """None for a job that has just reached a rung and goes on at once, else why it pauses.

        A job without a loss there, as it has no validation data, cannot be judged and goes on.
        """
        rung = rungs.get(place)
        if rung is None or number not in rung.losses:
            return None
        if self.pruner == "median":
            best = {job: _best(job, place, rungs) for job in rung.losses}
            mine = best.pop(number)
            behind = falls_behind(mine, list(best.values()))
            return f"its best loss, {mine:.4f}, is worse than the median" if behind else None
        if goes_on(number, rung.losses, rung.promoted, self.reduction):
            return None
        return f"not among the best 1/{self.reduction} of {len(rung.losses)} at step {place[1]}"

    def promoted(self, jobs: Sequence[Job], rungs: Rungs) -> list[tuple[int, Place]]:
        """Paused jobs that may go on now, with the rung they wait at; the highest rung first."""
        if self.pruner == "none":  # the pruner was taken off: they are trained to their end
            return [(job, place) for job, place in _waiting_at(jobs, rungs).items()]
        if self.pruner != "asha":
            return []
        paused = _waiting_at(jobs, rungs)
        found = []
        for place in sorted(rungs, key=lambda place: place[1], reverse=True):
            rising = promotable(rungs[place].losses, rungs[place].promoted, self.reduction)
            found += [(number, place) for number in rising if paused.get(number) == place]
        return found or self._last(jobs, rungs, paused)

    def _last(
        self, jobs: Sequence[Job], rungs: Rungs, paused: Mapping[int, Place]
    ) -> list[tuple[int, Place]]:
        """One job goes on where all others are through with and none would come to its end."""
        if any(job.state in ("waiting", "running") for job in jobs):
            return []
        places = sorted(rungs, key=lambda place: place[1])
        number = last_chance(
            [{n: x for n, x in rungs[p].losses.items() if paused.get(n) == p} for p in places],
            [rungs[place].promoted for place in places],
            [job.number for job in jobs if job.state == "done"],
        )
        return [] if number is None else [(number, paused[number])]


def startable(
    jobs: Sequence[Job], rungs: Rungs, rules: Rules, *, folder: Path, retries: int
) -> list[tuple[Job, Place | None]]:
    """The jobs a worker may try to claim, best first, and the rung a paused one is promoted from.

    `jobs` are those that a launch wants; `folder` is the sweep's. Jobs that say they are running
    come last, tries left or not: only their lock tells whether they are.
    """
    by_number = {job.number: job for job in jobs}
    rising: list[tuple[Job, Place | None]] = [
        (by_number[number], place) for number, place in rules.promoted(jobs, rungs)
    ]
    ready = [
        job
        for job in jobs
        if is_open(job, retries=retries) and _trunk_is_ready(job, by_number, folder)
    ]
    ready.sort(key=lambda job: (job.state == "running", job.number))
    return [*rising, *((job, None) for job in ready)]


def is_open(job: Job, *, retries: int) -> bool:
    """Whether a worker may still be needed for a job that has not paused.

    One that says it is running is: should its worker be dead, somebody has to say so.
    """
    return job.state == "running" or (job.state == "waiting" and job.tries <= retries)


def _waiting_at(jobs: Sequence[Job], rungs: Rungs) -> dict[int, Place]:
    """Paused (or pruned) job -> the rung it stands at: the last it has reached."""
    states = ("paused", "pruned")
    standing = {job.number for job in jobs if job.state in states}
    places: dict[int, Place] = {}
    for place in sorted(rungs):
        places |= {number: place for number in rungs[place].losses if number in standing}
    return places


def _best(job: int, place: Place, rungs: Rungs) -> float:
    """The lowest loss of a job at this rung and those before it."""
    total, step = place
    own = [r.losses.get(job) for (t, s), r in rungs.items() if t == total and s <= step]
    return min(loss for loss in own if loss is not None)


def _trunk_is_ready(job: Job, jobs: Mapping[int, Job], folder: Path) -> bool:
    """Whether a branch has its checkpoint, or its trunk will never bring one."""
    if job.trunk is None or job.branch_step is None:
        return True
    trunk = jobs.get(job.trunk)
    if trunk is None or trunk.state not in ("waiting", "running"):
        return True
    if trunk.state == "running" and trunk.progress.get("step", 0) > job.branch_step:
        return True  # the checkpoint is there, or the trunk had passed when somebody asked for it
    return branch_file(RunFolder(folder / trunk.folder), job.branch_step).is_file()
