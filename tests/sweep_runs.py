"""Real jobs of a moment each, for tests of where and how they are run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from graftlab.registry import dump
from graftlab.sweeps.engine import SweepOutcome, launch, prepare
from graftlab.sweeps.identity import data_identity, job_identity
from graftlab.sweeps.jobs import Job, NewJob
from graftlab.sweeps.joint_worker import JointWorker
from graftlab.sweeps.launchers.base import Launcher, LaunchRequest
from graftlab.sweeps.slots import Slot
from graftlab.sweeps.source import Grid
from graftlab.sweeps.spec import Sweep
from graftlab.sweeps.worker import RECYCLE, Worker
from graftlab.training.spec import TrainSpec
from graftlab.training.trainer import TrainerSpec
from training_spec import small_root, small_spec


def small_run(root: Path) -> TrainSpec:
    """Five steps an epoch of a miniature base, two epochs; base and data are written to `root`."""
    small_root(root)
    return replace(small_spec(root), trainer=TrainerSpec(accelerator="cpu"))


def jobs_of(base: TrainSpec, rates: Sequence[float]) -> list[NewJob]:
    """A job for each learning rate."""
    configs = [dump(replace(base, lr=rate)) for rate in rates]
    return [
        NewJob(
            identity=job_identity(config, data_identity(base.data)),
            label=f"lr{rate}",
            swept={"lr": str(rate)},
            spec=config,
        )
        for rate, config in zip(rates, configs, strict=True)
    ]


class Here:
    """A launcher's workers without processes: one worker, in this one, until nothing is left."""

    parting = "stopped."

    def __init__(self, worker: Callable[[], Worker]) -> None:
        self.worker = worker

    def start(self) -> None:
        while self.worker().work() == RECYCLE:
            pass

    def poll(self) -> bool:
        return False

    def stop(self, number: int = 0) -> None: ...

    def close(self) -> None: ...


def sweep_here(
    folder: Path, drafts: Sequence[NewJob], *, together: int = 1, **settings: Any
) -> SweepOutcome:
    """The sweep in `folder` by a worker in this process, which trains so many jobs at once.

    What there is to see of processes needs real ones; starting one costs more than these jobs do.
    """
    ledger, _ = prepare(folder, Sweep(**settings))
    made = partial(JointWorker, most=together) if together > 1 else Worker
    return launch(
        ledger, Grid(list(drafts)), lambda name: Here(lambda: made(ledger, name)), slots=1
    )


def run_sweep(
    folder: Path,
    drafts: Sequence[NewJob],
    launcher: Launcher,
    *,
    devices: int = 1,
    program: Sequence[str] | None = None,
    watch: Callable[[list[Job], Any], None] = lambda jobs, workers: None,
    **settings: Any,
) -> SweepOutcome:
    """The sweep in `folder`, one thread a process.

    `program` takes the place of real workers; `watch` sees the jobs and what the launcher started.
    """
    given = Sweep(**settings)
    ledger, _ = prepare(folder, given)
    work = LaunchRequest(
        ledger=ledger,
        retries=given.retries,
        jobs=len(drafts),
        accelerator="cpu",
        devices=devices,
        base_bytes=0.0,
    )
    places = [
        Slot(slot.name, slot.environment | {"OMP_NUM_THREADS": "1"})
        for slot in launcher.places(work)
    ]
    started: list[Any] = []

    def workers(name: str) -> Any:
        started.append(launcher.workers(work, places, name))
        if program is not None:
            started[-1].program = program
        return started[-1]

    return launch(
        ledger,
        Grid(list(drafts)),
        workers,
        slots=len(places),
        name=launcher.launch_name,
        watch=lambda jobs: watch(jobs, started[-1]),
    )
