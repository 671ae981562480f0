"""Joint training from jobs to outcomes: each run ends on its own, and is told of at once.

claim_all, settle_shared, seat_all     folders, data and adapters
check_apart                            documents and adapters do not see each other
_train                                 steps until the table is empty
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from graftlab.errors import GraftlabError, Interrupted
from graftlab.models.cache import lend
from graftlab.training.fit import quiet_lightning
from graftlab.training.joint.announce import announce
from graftlab.training.joint.groups import Ended, Job, group
from graftlab.training.joint.opening import claim_all, seat_all, settle_shared
from graftlab.training.joint.probe import check_apart
from graftlab.training.joint.table import Table
from graftlab.training.memory import memory_advice
from graftlab.training.signals import Signals

if TYPE_CHECKING:
    from graftlab.training.joint.seat import Seat


def execute_together(jobs: Sequence[Job], *, signals: Signals | None = None) -> Iterator[Ended]:
    """Train `jobs` in one process on one base; yields what becomes of each as soon as it is so.

    The jobs must be one of `group`'s groups. Each leaves its folder as a run alone would; one that
    has checkpoints goes on from the last. A job that fails or is paused leaves the others training.
    After SIGTERM or Ctrl-C all are saved behind the step at hand and end as Interrupted. `signals`
    is entered by the caller, if given. Anything but GraftlabError, which would be a mistake of the
    program's, is raised and ends all.
    """
    assert len(group([job.spec for job in jobs])) == 1, "jobs are grouped before"
    open_jobs = set(range(len(jobs)))
    with ExitStack() as stack:
        watched = stack.enter_context(Signals()) if signals is None else signals
        try:
            for ended in _execute(jobs, watched):
                open_jobs.discard(ended.index)
                yield ended
        except (GraftlabError, Interrupted) as error:  # of what they share: it is everyone's
            for index in sorted(open_jobs):
                yield Ended(index=index, error=error, shared=True)


@dataclass(frozen=True, slots=True)
class _Clock:
    """When the joint run started, and how long setting up took."""

    started: float
    setup_seconds: float


def _execute(jobs: Sequence[Job], signals: Signals) -> Iterator[Ended]:
    started = time.perf_counter()
    quiet_lightning()
    claimed, ended = claim_all(jobs)
    yield from ended
    if not claimed:
        return
    open_jobs = [job for _, job, _ in claimed]
    spec = open_jobs[0].spec
    with memory_advice(spec):
        shared = settle_shared(open_jobs)
        precision = shared.precision
        with lend(spec.model, dtype=precision.base_dtype, device=shared.place.device) as base:
            at_step = Signals()  # never entered: what all runs of one step are told
            seats, ended = seat_all(shared, claimed, base, signals=at_step)
            yield from ended
            try:
                if seats:
                    base.set_checkpointing(spec.model.gradient_checkpointing)
                    adapters = [seat.adapter for seat in seats]
                    found = check_apart(base, adapters, autocast=precision.autocast)
                    announce(shared, seats, found)
                    table = Table(base, shared, seats)
                    clock = _Clock(started, time.perf_counter() - started)
                    yield from _train(table, signals, at_step, clock)
            finally:
                signals.stepping = False
                for seat in seats:
                    seat.close(1)


def _train(table: Table, signals: Signals, at_step: Signals, clock: _Clock) -> Iterator[Ended]:
    """Steps until nobody is left. From here on a signal waits for the end of a step."""
    signals.stepping = True
    for seat in table.seats:
        with seat.trying():
            seat.start(base=table.baseline, tuned=table.tuned)
    yield from _departures(table, clock)
    while table.seats:
        table.take_seats()
        table.passes()
        for seat in table.active:
            with seat.trying():
                seat.standin.update()
        stepped = [seat for seat in table.active if seat.error is None]
        for seat in stepped:  # first of all: what follows is no part of the step's time
            seat.measure(1 / len(table.active))
        at_step.received = signals.received
        for seat in stepped:
            with seat.trying():
                seat.settle()
        for seat in stepped:  # when all have reached the rung: whoever judges one knows of all
            if seat.error is None:
                with seat.trying():
                    seat.save()
        if at_step.received is not None:
            _interrupt_waiting(table, at_step.received)
        yield from _departures(table, clock)


def _interrupt_waiting(table: Table, number: int) -> None:
    """Runs ahead of the others have nothing to save: they end as they were resumed."""
    for seat in table.seats:
        if seat not in table.active:
            message = f"stopped before step {seat.step + 1}; resume=auto goes on."
            seat.error = Interrupted(message, 128 + number)


def _departures(table: Table, clock: _Clock) -> Iterator[Ended]:
    """See off all whose run has ended, finished first: what they did must not wait for others."""
    leaving = [seat for seat in table.seats if seat.error is not None or seat.done]
    for seat in leaving:
        table.leave(seat)
    for seat in leaving:
        yield _see_off(seat, clock)


def _see_off(seat: Seat, clock: _Clock) -> Ended:
    result = None
    if seat.error is None:
        with seat.trying():
            result = seat.finish(setup_seconds=clock.setup_seconds, started=clock.started)
    seat.close(0 if seat.paused else 1)
    return Ended(index=seat.index, result=result, error=seat.error)
