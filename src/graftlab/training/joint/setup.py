"""From jobs to runs: folders claimed, data read once, every adapter made on the base."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from graftlab.adapters.attach import attach
from graftlab.errors import GraftlabError
from graftlab.registry import dump
from graftlab.tracking.result import Result
from graftlab.training.checkpoint import Saved
from graftlab.training.joint.groups import JointJob, RunEnded
from graftlab.training.joint.joint_run import JointRun
from graftlab.training.joint.stack import SlicePolicy, require_stackable
from graftlab.training.joint.trainer_shim import TrainerShim
from graftlab.training.run import assemble, claim
from graftlab.training.samples import Replies
from graftlab.training.setup import Setup, resolve_setup, resolve_setup_like
from graftlab.training.signals import Signals

if TYPE_CHECKING:
    from graftlab.adapters.base import Adapter
    from graftlab.models.base import Base

Claimed = list[tuple[int, JointJob, Saved | None]]


def claim_all(jobs: Sequence[JointJob], *, first: int = 0) -> tuple[Claimed, list[RunEnded]]:
    """The jobs that can start, each with its last checkpoint, and those that ended already.

    A finished run is reported as it is; a folder that holds another run is that job's error.
    `first` is the index of the first of them.
    """
    claimed, ended = Claimed(), list[RunEnded]()
    for index, job in enumerate(jobs, first):
        try:
            if goes_on := job.folder.goes_on(job.spec.max_minutes):
                job.folder.require_same(dump(job.spec))
            if job.folder.finished and not goes_on:
                ended.append(RunEnded(index=index, result=_reported(job)))
                continue
            last = claim(job.spec, job.folder)
            job.folder.reopen()
            claimed.append((index, job, last))
        except GraftlabError as error:
            ended.append(RunEnded(index=index, error=error))
    return claimed, ended


def _reported(job: JointJob) -> Result:
    job.folder.require_same(dump(job.spec))
    return Result.read(job.folder.path / "result.json")


def resolve_shared_setup(jobs: Sequence[JointJob]) -> Setup:
    """Place, precision, data and rows, as all of these jobs share them. Raises GraftlabError.

    Kept of the data is what they sample from: who joins them later can sample no more than that.
    """
    prompts = max(job.spec.callbacks.samples.prompts for job in jobs)
    return resolve_setup(jobs[0].spec, jobs[0].folder, prompts=prompts)


class Host:
    """Attaches runs to the one base: those that begin together, and those that join them later."""

    def __init__(self, shared: Setup, base: Base) -> None:
        self.shared, self.base = shared, base
        self.at_step = Signals()
        """Never entered: what all runs of one step are told."""
        self.open: list[JointRun] = []
        """Seats whose loggers are not closed yet."""
        self._replies: dict[str, dict[int, str]] = {}  # the base's, by how they are drawn

    def admit(self, claimed: Claimed, *, began: float) -> tuple[list[JointRun], list[RunEnded]]:
        """A run for every job whose adapter fits the base, which is bare again afterwards.

        `began`: when (`time.perf_counter`) setting these up began.
        """
        runs, ended = list[JointRun](), list[RunEnded]()
        for index, job, resumed in claimed:
            try:
                runs.append(self._admit(job, index=index, resumed=resumed, began=began))
            except GraftlabError as error:
                ended.append(RunEnded(index=index, error=error))
            finally:
                if self.base.adapter is not None:
                    self.base.adapter.detach()
        self.open += runs
        self.base.set_checkpointing(self.shared.spec.model.gradient_checkpointing)
        return runs, ended

    def _admit(self, job: JointJob, *, index: int, resumed: Saved | None, began: float) -> JointRun:
        spec, precision = job.spec, self.shared.precision
        setup = resolve_setup_like(self.shared, spec, job.folder)
        adapter = attach(self.base, spec.lora, seed=spec.seed, dtype=precision.adapter_dtype)
        require_stackable(adapter)
        policy = SlicePolicy(self.base, adapter)
        drawn = json.dumps(dump(spec.generation), sort_keys=True)
        fit = assemble(
            setup,
            adapter,
            signals=self.at_step,
            observer=job.observer,
            policy=policy,
            replies=Replies(
                partial(_alone, adapter, precision.autocast), self._replies.setdefault(drawn, {})
            ),
        )
        return JointRun(
            index=index,
            job=job,
            setup=setup,
            fit=fit,
            adapter=adapter,
            policy=policy,
            shim=TrainerShim(fit.module, setup.plan, accumulate=spec.accumulate),
            resumed=resumed,
            began=began,
        )

    def end(self, run: JointRun) -> RunEnded:
        """What became of a run that has left the scheduler; nothing of it is kept here."""
        result = None
        if run.error is None:
            with run.trying():
                result = run.finish()
        run.close(0 if run.paused else 1)
        self.open.remove(run)
        return RunEnded(index=run.index, result=result, error=run.error)

    def close(self) -> None:
        """Close what is still open: something went wrong."""
        for run in self.open:
            run.close(1)


@contextmanager
def _alone(adapter: Adapter, autocast: Callable[[], AbstractContextManager[Any]]) -> Iterator[None]:
    """One adapter on the base, as in a run alone."""
    with adapter.mounted(), autocast():
        yield
