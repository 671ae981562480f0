"""Joint training from jobs to outcomes: each run ends on its own, and is told of at once.

claim_all, settle_shared, Host     folders, data and adapters
check_apart                        documents and adapters do not see each other
_train                             steps until the scheduler is empty
_admit                             between two of them: who joins
"""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from graftlab.errors import GraftlabError, Interrupted
from graftlab.models.cache import acquire
from graftlab.models.probe_branches import check_branches
from graftlab.training.fit import quiet_lightning
from graftlab.training.joint.announce import announce, announce_joiners
from graftlab.training.joint.groups import Joiners, JointJob, RunEnded, group, no_joiners
from graftlab.training.joint.probe import check_apart
from graftlab.training.joint.scheduler import JointScheduler
from graftlab.training.joint.setup import Host, claim_all, resolve_shared_setup
from graftlab.training.memory import memory_advice
from graftlab.training.reference import resolve_reference
from graftlab.training.signals import Signals

if TYPE_CHECKING:
    from graftlab.training.joint.joint_run import JointRun
    from graftlab.training.setup import Setup


def execute_together(
    jobs: Sequence[JointJob], *, signals: Signals | None = None, joiners: Joiners = no_joiners
) -> Iterator[RunEnded]:
    """Train `jobs` in one process on one base; yields what becomes of each as soon as it is so.

    The jobs must be one of `group`'s groups. Each leaves its folder as a run alone would; one that
    has checkpoints goes on from the last. A job that fails or is paused leaves the others training.
    After SIGTERM or Ctrl-C all are saved behind the step at hand and end as Interrupted. `signals`
    is entered by the caller, if given. Anything but GraftlabError, which would be a mistake of the
    program's, is raised and ends all.

    `joiners` is asked between steps; who comes is of the same group, samples no more prompts than
    one of `jobs` does, and is numbered on in the order of coming.
    """
    party, told = _Party(list(jobs), joiners), set[int]()
    assert party.is_one_group(), "jobs are grouped before"
    with ExitStack() as stack:
        watched = stack.enter_context(Signals()) if signals is None else signals
        try:
            for ended in _execute(party, watched):
                told.add(ended.index)
                yield ended
        except (GraftlabError, Interrupted) as error:  # of what they share: it is everyone's
            for index in range(len(party.jobs)):
                if index not in told:
                    yield RunEnded(index=index, error=error, shared=True)


@dataclass(slots=True)
class _Party:
    """All jobs so far, by their index, and who is asked for more."""

    jobs: list[JointJob]
    joiners: Joiners

    def is_one_group(self) -> bool:
        return len(group([job.spec for job in self.jobs])) == 1


def _execute(party: _Party, signals: Signals) -> Iterator[RunEnded]:
    began = time.perf_counter()
    quiet_lightning()
    claimed, ended = claim_all(party.jobs)
    yield from ended
    if not claimed:
        return
    open_jobs = [job for _, job, _ in claimed]
    spec = open_jobs[0].spec
    with memory_advice(spec):
        shared = resolve_shared_setup(open_jobs)
        precision = shared.precision
        with acquire(spec.model, dtype=precision.base_dtype, device=shared.place.device) as base:
            host = Host(shared, base)
            try:
                runs, ended = host.admit(claimed, began=began)
                yield from ended
                if runs:
                    announce(shared, runs, _prove_isolation(host, runs))
                    _resolve_reference(shared, runs)
                    scheduler = JointScheduler(base, shared)
                    signals.stepping = True  # from here on a signal waits for the end of a step
                    _start(scheduler, runs)
                    del runs  # a run that has left is not to be kept in memory
                    yield from _train(party, host, scheduler, signals)
            finally:
                signals.stepping = False
                host.close()


def _prove_isolation(host: Host, runs: Sequence[JointRun]) -> str:
    """What the probe found of their adapters, for the log. Raises LeakError."""
    adapters = [run.adapter for run in runs]
    autocast, branched = host.shared.precision.autocast, host.shared.plan.branched
    found = [check_apart(host.base, adapters, autocast=autocast, branches=branched)]
    if branched:
        found.append(check_branches(host.base, None, autocast=autocast))
    return "; ".join(found)


def _resolve_reference(shared: Setup, runs: Sequence[JointRun]) -> None:
    """One pass for all of them: those of a group go on from the same adapter, or from none."""
    adapter = runs[0].adapter
    if shared.spec.lora.from_run is None:
        resolve_reference(shared, adapter.base, None)
    else:
        with adapter.mounted():
            resolve_reference(shared, adapter.base, adapter)


def _train(
    party: _Party, host: Host, scheduler: JointScheduler, signals: Signals
) -> Iterator[RunEnded]:
    """Steps until nobody is left."""
    yield from _departures(host, scheduler)
    while scheduler.runs:
        if signals.received is None:
            yield from _admit(party, host, scheduler)
        scheduler.take_runs()
        scheduler.passes()
        for run in scheduler.active:
            with run.trying():
                run.shim.update()
        stepped = [run for run in scheduler.active if run.error is None]
        for run in stepped:  # first of all: what follows is no part of the step's time
            with run.trying():
                run.measure(1 / len(scheduler.active))
        stepped = [run for run in stepped if run.error is None]
        host.at_step.received = signals.received
        for run in stepped:
            with run.trying():
                run.finish_step()
        for run in stepped:  # when all have reached the rung: whoever judges one knows of all
            if run.error is None:
                with run.trying():
                    run.save()
        if host.at_step.received is not None:
            for run in scheduler.runs:
                if run not in scheduler.active:
                    run.interrupt(host.at_step.received)
        yield from _departures(host, scheduler)


def _start(scheduler: JointScheduler, runs: Sequence[JointRun]) -> None:
    for run in runs:
        run.setup_seconds = time.perf_counter() - run.began
        scheduler.runs.append(run)
        with run.trying():
            run.start(base=partial(scheduler.baseline, run), tuned=scheduler.tuned)


def _admit(party: _Party, host: Host, scheduler: JointScheduler) -> Iterator[RunEnded]:
    """Whoever joins takes a run. What keeps one of them from it ends no other run."""
    began = time.perf_counter()
    step, active = scheduler.behind()
    jobs = party.joiners(step, len(active))
    if not jobs:
        return
    first = len(party.jobs)
    party.jobs += jobs
    assert party.is_one_group(), "who joins is of the same group"
    gc.collect()  # those who left held their adapters in reference cycles
    claimed, ended = claim_all(jobs, first=first)
    yield from ended
    runs, ended = host.admit(claimed, began=began)
    yield from ended
    if not runs:
        return
    try:
        _prove_isolation(host, runs)
    except GraftlabError as error:
        for run in runs:
            run.error = error
            yield RunEnded(index=run.index, error=host.end(run).error, shared=True)
        return
    announce_joiners(runs)
    _start(scheduler, runs)
    yield from _departures(host, scheduler)


def _departures(host: Host, scheduler: JointScheduler) -> Iterator[RunEnded]:
    """See off all whose run has ended, finished first: what they did must not wait for others."""
    leaving = [run for run in scheduler.runs if run.error is not None or run.done]
    for run in leaving:
        scheduler.leave(run)
    for run in leaving:
        yield host.end(run)
