"""Joint training from jobs to outcomes: each run ends on its own, and is told of at once.

claim_all, settle_shared, Host     folders, data and adapters
check_apart                        documents and adapters do not see each other
_train                             steps until the table is empty
_admit                             between two of them: who joins
"""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from graftlab.errors import GraftlabError, Interrupted
from graftlab.models.cache import lend
from graftlab.training.fit import quiet_lightning
from graftlab.training.joint.announce import announce, announce_joiners
from graftlab.training.joint.groups import Ended, Job, Joiners, group, nobody
from graftlab.training.joint.opening import Host, claim_all, settle_shared
from graftlab.training.joint.probe import check_apart
from graftlab.training.joint.table import Table
from graftlab.training.memory import memory_advice
from graftlab.training.signals import Signals

if TYPE_CHECKING:
    from graftlab.training.joint.seat import Seat


def execute_together(
    jobs: Sequence[Job], *, signals: Signals | None = None, joiners: Joiners = nobody
) -> Iterator[Ended]:
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
                    yield Ended(index=index, error=error, shared=True)


@dataclass(slots=True)
class _Party:
    """All jobs so far, by their index, and who is asked for more."""

    jobs: list[Job]
    joiners: Joiners

    def is_one_group(self) -> bool:
        return len(group([job.spec for job in self.jobs])) == 1


def _execute(party: _Party, signals: Signals) -> Iterator[Ended]:
    began = time.perf_counter()
    quiet_lightning()
    claimed, ended = claim_all(party.jobs)
    yield from ended
    if not claimed:
        return
    open_jobs = [job for _, job, _ in claimed]
    spec = open_jobs[0].spec
    with memory_advice(spec):
        shared = settle_shared(open_jobs)
        precision = shared.precision
        with lend(spec.model, dtype=precision.base_dtype, device=shared.place.device) as base:
            host = Host(shared, base)
            try:
                seats, ended = host.seat(claimed, began=began)
                yield from ended
                if seats:
                    announce(shared, seats, _prove_isolation(host, seats))
                    table = Table(base, shared)
                    signals.stepping = True  # from here on a signal waits for the end of a step
                    _sit_down(table, seats)
                    del seats  # a run that has left is not to be kept in memory
                    yield from _train(party, host, table, signals)
            finally:
                signals.stepping = False
                host.close()


def _prove_isolation(host: Host, seats: Sequence[Seat]) -> str:
    """What the probe found of their adapters, for the log. Raises LeakError."""
    adapters = [seat.adapter for seat in seats]
    return check_apart(host.base, adapters, autocast=host.shared.precision.autocast)


def _train(party: _Party, host: Host, table: Table, signals: Signals) -> Iterator[Ended]:
    """Steps until nobody is left."""
    yield from _departures(host, table)
    while table.seats:
        if signals.received is None:
            yield from _admit(party, host, table)
        table.take_seats()
        table.passes()
        for seat in table.active:
            with seat.trying():
                seat.standin.update()
        stepped = [seat for seat in table.active if seat.error is None]
        for seat in stepped:  # first of all: what follows is no part of the step's time
            with seat.trying():
                seat.measure(1 / len(table.active))
        stepped = [seat for seat in stepped if seat.error is None]
        host.at_step.received = signals.received
        for seat in stepped:
            with seat.trying():
                seat.settle()
        for seat in stepped:  # when all have reached the rung: whoever judges one knows of all
            if seat.error is None:
                with seat.trying():
                    seat.save()
        if host.at_step.received is not None:
            for seat in table.seats:
                if seat not in table.active:
                    seat.interrupt(host.at_step.received)
        yield from _departures(host, table)


def _sit_down(table: Table, seats: Sequence[Seat]) -> None:
    for seat in seats:
        seat.setup_seconds = time.perf_counter() - seat.began
        table.seats.append(seat)
        with seat.trying():
            seat.start(base=table.baseline, tuned=table.tuned)


def _admit(party: _Party, host: Host, table: Table) -> Iterator[Ended]:
    """Whoever joins takes a seat. What keeps one of them from it ends no other run."""
    began = time.perf_counter()
    step, active = table.behind()
    jobs = party.joiners(step, len(active))
    if not jobs:
        return
    first = len(party.jobs)
    party.jobs += jobs
    assert party.is_one_group(), "who joins is of the same group"
    gc.collect()  # those who left held their adapters in reference cycles
    claimed, ended = claim_all(jobs, first=first)
    yield from ended
    seats, ended = host.seat(claimed, began=began)
    yield from ended
    if not seats:
        return
    try:
        _prove_isolation(host, seats)
    except GraftlabError as error:
        for seat in seats:
            seat.error = error
            yield Ended(index=seat.index, error=host.see_off(seat).error, shared=True)
        return
    announce_joiners(seats)
    _sit_down(table, seats)
    yield from _departures(host, table)


def _departures(host: Host, table: Table) -> Iterator[Ended]:
    """See off all whose run has ended, finished first: what they did must not wait for others."""
    leaving = [seat for seat in table.seats if seat.error is not None or seat.done]
    for seat in leaving:
        table.leave(seat)
    for seat in leaving:
        yield host.see_off(seat)
