"""Epoch sweeps without repeating work: jobs that differ only in length share a trunk.

Under a schedule that is constant between warm-up and decay (arXiv 2404.06395), a shorter job does
what a longer one does until its own decay begins. So the longest is trained, and the others go on
from its checkpoints:

    epochs=5   |/-------------------------------------\\   the trunk
    epochs=3   .            branch here ->|--\\            only the end is trained
    epochs=2   .   branch here ->|-\\

Where they part is found by comparing the factors of both schedules step by step. The warm-up must
not depend on the length: in steps or epochs, never a share. A branch equals its run trained alone,
bit for bit: adapter, log (but for times), checkpoints and result.

    TRUNK/branches/step-000120.ckpt     where others go on, linked when the trunk saves that step
    TRUNK/branches/step-000120/         the best checkpoints there were by then

A checkpoint that is damaged starts no branch: its job then trains from the beginning.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from graftlab.console import say
from graftlab.errors import ResumeError, counted
from graftlab.files.building import building
from graftlab.files.checksums import beside, write_checksum
from graftlab.files.paths import absolute
from graftlab.files.writing import atomic_file, write_atomic
from graftlab.registry import dump
from graftlab.tracking.folder import RunFolder
from graftlab.tracking.identity import identity
from graftlab.training.checkpoint import CheckpointStore, Saved
from graftlab.training.spec import TrainSpec

SHAPES = ("wsd", "constant")
"""Schedules with a stretch that does not depend on their length."""
BRANCHES = "branches"


@dataclass(frozen=True, slots=True, kw_only=True)
class Length:
    """A job and how long it is."""

    spec: TrainSpec
    steps_per_epoch: int
    compiled: bool
    """Whether its layers are compiled (`models.compile.plan_compile`): such layers round otherwise,
    so only jobs that agree in this can share."""

    @property
    def total_steps(self) -> int:
        return self.spec.max_steps or self.spec.epochs * self.steps_per_epoch

    @property
    def factor(self) -> Callable[[int], float]:
        """The schedule of the job: index of an optimizer step -> multiple of lr."""
        total, schedule = self.total_steps, self.spec.schedule
        warmup = schedule.warmup(total_steps=total, steps_per_epoch=self.steps_per_epoch)
        return partial(schedule.factor, warmup=warmup, total_steps=total)

    @property
    def kind(self) -> tuple[str, int, bool]:
        """What jobs of one trunk have in common."""
        return regardless_of_length(dump(self.spec)), self.steps_per_epoch, self.compiled


@dataclass(frozen=True, slots=True)
class BranchPoint:
    """Where a job goes on from: the checkpoint of job number `trunk` after `step` steps."""

    trunk: int
    step: int


def regardless_of_length(config: dict[str, Any]) -> str:
    """A run's identity but for how long it is."""
    return identity({**config, "epochs": None, "max_steps": None})


def plan_trunks(jobs: Sequence[Length]) -> list[BranchPoint | None]:
    """For every job the trunk it branches from, by its place in `jobs`; None for those that start
    at the beginning, the trunks among them.
    """
    kinds: dict[tuple[str, int, bool], list[int]] = {}
    for place, job in enumerate(jobs):
        if job.spec.schedule.shape in SHAPES:
            kinds.setdefault(job.kind, []).append(place)
    plan: list[BranchPoint | None] = [None] * len(jobs)
    for places in kinds.values():
        trunk = max(places, key=lambda place: (jobs[place].total_steps, -place))
        for place in places:
            step = 0 if place == trunk else branch_step(jobs[place], jobs[trunk])
            if step > 0:
                plan[place] = BranchPoint(trunk, step)
    return plan


def branch_step(job: Length, trunk: Length) -> int:
    """After how many optimizer steps `job` must leave the trunk, which is at least as long.

    Both have trained alike until then, and the next step's learning rate, which a checkpoint holds
    already, is still the same. At least the job's last step is left to it. 0: nothing is shared.
    """
    ours, theirs = job.factor, trunk.factor
    step = 0
    for index in range(job.total_steps):
        if ours(index) != theirs(index):
            break
        step = index
    return step


def branch_file(trunk: RunFolder, step: int) -> Path:
    """The checkpoint that a trunk keeps for those that leave it after `step` steps."""
    return trunk.path / BRANCHES / f"step-{step:06d}.ckpt"


def keep_branch(trunk: RunFolder, step: int, checkpoint: Path) -> None:
    """Keep what a branch needs: the checkpoint just saved and the best ones until here.

    To be called before the trunk's run removes older checkpoints (`Observer.saved`). The branch's
    own file appears last: where it is, everything is.
    """
    target = branch_file(trunk, step)
    if target.exists():
        return
    best = [s for s in CheckpointStore(trunk.checkpoints).saved() if s.counts]
    with building(target.with_suffix("")) as folder:
        for saved in best:
            if saved.step < step:
                _link(saved.path, folder / saved.path.name)
        _link(checkpoint, folder / checkpoint.name)
    _link(checkpoint, target)


def branch(checkpoint: Path, *, trunk: RunFolder, spec: TrainSpec, folder: RunFolder) -> None:
    """Prepare `folder` so that a run of `spec` with resume=auto goes on from `checkpoint`.

    `checkpoint` is a `branch_file` of `trunk`. A folder that holds checkpoints already is left as
    it is. Raises ResumeError where the trunk is of another kind than `spec`.
    """
    if CheckpointStore(folder.checkpoints).last() is not None:
        return
    kept = CheckpointStore(checkpoint.with_suffix("")).saved()
    try:
        begun = trunk.config()
        for saved in kept:
            saved.load(mapped=True)
    except (OSError, ValueError) as error:
        say(f"! {error}: this run begins at the beginning instead.")
        return
    spec.date = spec.date or begun.get("date")  # on which the shared steps were rendered
    config = dump(spec)
    if regardless_of_length(begun) != regardless_of_length(config):
        raise ResumeError(f"{trunk.path} is no trunk of this run: more than the length differs.")
    folder.take()
    folder.write_config(config)
    with building(folder.checkpoints) as checkpoints:
        for saved in kept:
            _adopt(saved, checkpoints / saved.path.name, config)


def _adopt(saved: Saved, target: Path, config: dict[str, Any]) -> None:
    """Copy a checkpoint under the name of the run that goes on from it."""
    import torch

    content = saved.load()
    content["run"] = absolute(config)
    own = identity(config, paths=False)
    content["identity"] = {**content["identity"], "configuration": own}
    torch.save(content, target)
    write_checksum(target)


def _link(source: Path, target: Path) -> None:
    """A second name for a file, its checksum first; a copy where the file system has no links."""
    if (sum_file := beside(source)).is_file():
        write_atomic(beside(target), sum_file.read_text(encoding="ascii"))
    try:
        os.link(source, target)
    except OSError:
        with atomic_file(target) as draft:
            shutil.copyfile(source, draft)


def plan_line(jobs: Sequence[Length]) -> str:
    """What the jobs cost in epochs, and what sharing trunks saves or would save."""
    runs = f"{counted(len(jobs), 'run')}, {_epochs(jobs, [None] * len(jobs)):.4g} epochs"
    shared = plan_trunks(jobs)
    if any(shared):
        return f"{runs}; {_lengths(jobs, shared)} share trunks: {_epochs(jobs, shared):.4g} epochs"
    other = [_with_trunks(job, jobs) for job in jobs]
    possible = plan_trunks(other)
    if not any(possible):
        return runs
    warmup = next(o.spec.schedule.warmup_steps for o, b in zip(other, possible, strict=True) if b)
    return (
        f"{runs}; with schedule=wsd schedule.warmup_ratio=null schedule.warmup_steps={warmup} "
        f"{_lengths(jobs, possible)} would share trunks: {_epochs(jobs, possible):.4g} epochs"
    )


def _epochs(jobs: Sequence[Length], plan: Sequence[BranchPoint | None]) -> float:
    """Epochs that are trained when jobs branch as planned."""
    return sum(
        (job.total_steps - (found.step if found else 0)) / job.steps_per_epoch
        for job, found in zip(jobs, plan, strict=True)
    )


def _lengths(jobs: Sequence[Length], plan: Sequence[BranchPoint | None]) -> str:
    """The lengths among which trunks are shared, as typed."""
    places = {place for place, found in enumerate(plan) if found}
    places |= {found.trunk for found in plan if found}
    key = "max_steps" if any(jobs[place].spec.max_steps for place in places) else "epochs"
    values = {getattr(jobs[place].spec, key) or jobs[place].total_steps for place in places}
    return f"{key}={','.join(str(value) for value in sorted(values))}"


def _with_trunks(job: Length, jobs: Sequence[Length]) -> Length:
    """The same job with a schedule that lets trunks be shared; its warm-up fits the shortest."""
    shortest = min(jobs, key=lambda other: other.total_steps)
    warmup = job.spec.schedule.warmup(
        total_steps=shortest.total_steps, steps_per_epoch=job.steps_per_epoch
    )
    schedule = replace(
        job.spec.schedule,
        shape="wsd",
        warmup_steps=warmup,
        warmup_ratio=None,
        warmup_epochs=None,
    )
    return replace(job, spec=replace(job.spec, schedule=schedule))
