"""A sweep, from its first job to the table of what came out; what `train -m` runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from graftlab.console import console, new_table, say
from graftlab.errors import ConfigError, counted
from graftlab.files.ownership import take
from graftlab.progress import clock
from graftlab.sweeps.engine import SweepOutcome, launch, own_facts, prepare
from graftlab.sweeps.joint_benchmark import measure_joint
from graftlab.sweeps.launchers.auto import AutoLauncher
from graftlab.sweeps.launchers.base import Launcher, LaunchRequest, Workers
from graftlab.sweeps.launchers.joint import JointLauncher
from graftlab.sweeps.ledger import Ledger
from graftlab.sweeps.live_table import LiveTable
from graftlab.sweeps.slots import Slot
from graftlab.sweeps.source import Grid, Source
from graftlab.sweeps.spec import Sweep
from graftlab.tracking.ranking import Ranking
from graftlab.tracking.result import Result, few_documents
from graftlab.training.spec import TrainSpec

BEST = 5
"""Rows of the table at the end."""


@dataclass(kw_only=True, slots=True)
class Order:
    """What is to be swept, composed and checked."""

    base: TrainSpec
    """The run without the swept values."""
    sweep: Sweep
    launcher: Launcher
    source: Source
    folder: Path
    jobs: int
    """How many there will be at most."""
    notes: list[str] = field(default_factory=list)
    """What people are told before the first job starts."""
    keeps: list[int] = field(default_factory=list)
    """As in `Rules`."""


def run(order: Order) -> SweepOutcome:
    """Run the sweep in its folder, going on where an earlier launch of it left off.

    Raises Interrupted after a signal, when all running jobs are saved and the same line goes on.
    """
    sweep, launcher = order.sweep, order.launcher
    take(order.folder, "sweep", key="hydra.sweep.dir")
    ledger, rules = prepare(order.folder, sweep)
    ledger.settled_fact("date", order.base.date)
    ranking = order.base.ranking
    if (known := ledger.settled_fact("compared by", ranking.by)) != ranking.by:
        raise ConfigError(
            f"{order.folder} compares its jobs by {known}, and this line by {ranking.by}: give "
            "another hydra.sweep.dir."
        )
    work = LaunchRequest(
        ledger=ledger,
        retries=sweep.retries,
        jobs=order.jobs,
        accelerator=order.base.trainer.accelerator,
        devices=order.base.trainer.devices,
        base_bytes=float(order.base.model.num_bytes),
    )
    slots = _kept_slots(ledger, launcher.places(work))
    for line in [*order.notes, _heading(order, slots)]:
        say(line)
    with LiveTable(ranking=ranking) as table:
        ended = launch(
            ledger,
            order.source,
            lambda name: _workers(order, work, slots, name),
            slots=len(slots) * (launcher.most if isinstance(launcher, JointLauncher) else 1),
            timeout=sweep.timeout,
            name=launcher.launch_name,
            watch=table.show,
            facts=own_facts(replace(rules, keeps=order.keeps), sweep),
        )
    show(ended, ranking)
    return ended


def _workers(order: Order, work: LaunchRequest, slots: list[Slot], launch: str) -> Workers:
    """The launcher's workers; `auto` decides now, as the jobs are known."""
    launcher = order.launcher
    if type(launcher) is not AutoLauncher:
        return launcher.workers(work, slots, launch)
    joint = JointLauncher(slots=launcher.slots, threads=launcher.threads)
    at_once = joint.at_once(work, len(slots))
    search = order.sweep.search != "grid"
    together, why = measure_joint(work.ledger, launch, slots[0], at_once=at_once, search=search)
    said = f"joint, up to {at_once} jobs together in a process" if together else "local"
    say(f"launcher=auto: {said}, because {why}")
    return (joint if together else launcher).workers(work, slots, launch)


def show(ended: SweepOutcome, ranking: Ranking) -> None:
    """The best jobs, how many of each, and the failures with their reasons."""
    scored = sorted(
        (job for job in ended.jobs if job.state == "done" and job.score is not None),
        key=lambda job: (job.score or 0.0, job.number),
    )
    if scored:
        keys = list(dict.fromkeys(key for job in scored for key in job.swept))
        left = ["job", *keys]
        beside = [] if ranking.is_loss else ["validation loss"]
        table = new_table(f"best by {ranking.name}", [*left, ranking.name, *beside], left=left)
        for job in scored[:BEST]:
            values = (job.swept.get(key, "") for key in keys)  # conditional keys may lack
            told = f"{ranking.key(job.score or 0.0):.4f}"
            losses = [_loss(ended.folder / job.folder)] if beside else []
            table.add_row(str(job.number), *values, told, *losses)
        console().print(table)
        if (few := _few_documents(ended.folder / scored[0].folder)) is not None:
            say(f"validation losses are {few}")
    failed = [job for job in ended.jobs if job.state == "failed"]
    for job in failed:
        say(f"{job.name} failed: {job.error} ({ended.folder / job.folder})")
    counts = [(ended.count(s), s) for s in ("done", "pruned", "paused", "failed", "waiting")]
    say(f"{', '.join(f'{n} {state}' for n, state in counts if n)} in {clock(ended.seconds)}.")
    say(f"sweep:    {ended.folder}")
    say(f"compare:  graftlab report {ended.folder}")


def _loss(run: Path) -> str:
    """The validation loss of a run's adapter."""
    with suppress(OSError, ValueError, TypeError):  # another version's
        loss = Result.read(run / "result.json").score
        return "-" if loss is None else f"{loss:.4f}"
    return "-"


def _few_documents(run: Path) -> str | None:
    """What is said of a validation over few documents; the jobs of a sweep share theirs."""
    with suppress(OSError, ValueError, TypeError):  # another version's
        number = Result.read(run / "result.json").valid_documents
        return None if number is None else few_documents(number)
    return None


def _heading(order: Order, slots: Sequence[Slot]) -> str:
    known = Ledger(order.folder).jobs()
    done = sum(job.state == "done" and order.source.wants(job) for job in known)
    earlier = f" ({done} done by earlier launches)" if done else ""
    threads = slots[0].environment.get("OMP_NUM_THREADS", "all")
    noun = "thread" if threads == "1" else "threads"
    where = f"{', '.join(slot.name for slot in slots)}; {threads} {noun} each"
    most = "" if isinstance(order.source, Grid) else "up to "
    jobs = f"{most}{counted(order.jobs, 'job')}{earlier}"
    return f"sweep {order.folder}: {jobs}, {_side_by_side(order, slots)} ({where})"


def _side_by_side(order: Order, slots: Sequence[Slot]) -> str:
    """How many jobs run at a time; where `launcher=auto` has yet to decide, how many processes."""
    launcher = order.launcher
    if isinstance(launcher, JointLauncher):
        together = min(launcher.most, math.ceil(order.jobs / len(slots)))
        each = "one process" if len(slots) == 1 else f"each of {len(slots)} processes"
        return f"up to {together} trained together in {each}"
    if type(launcher) is AutoLauncher:
        return "1 process" if len(slots) == 1 else f"{len(slots)} processes"
    return f"{len(slots)} at once"


def _kept_slots(ledger: Ledger, slots: list[Slot]) -> list[Slot]:
    """The slots with as many threads as the first launch gave: the number decides the last bits."""
    threads = slots[0].environment.get("OMP_NUM_THREADS")
    kept = ledger.settled_fact("threads", threads)
    return [Slot(slot.name, {**slot.environment, "OMP_NUM_THREADS": str(kept)}) for slot in slots]
