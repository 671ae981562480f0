"""From jobs to seats: folders claimed, data read once, every adapter made on the base."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from graftlab.choices import dump
from graftlab.errors import GraftlabError, ResumeError
from graftlab.tracking.folder import identity
from graftlab.tracking.result import Result
from graftlab.training.checkpoint import Saved
from graftlab.training.joint.groups import Ended, Job
from graftlab.training.joint.seat import Seat
from graftlab.training.joint.stack import SlicePolicy, require_stackable
from graftlab.training.joint.standin import StandIn
from graftlab.training.run import assemble, claim
from graftlab.training.samples import Replies
from graftlab.training.setup import Setup, settle, settle_like

if TYPE_CHECKING:
    from graftlab.adapters.base import Adapter
    from graftlab.models.base import Base
    from graftlab.training.signals import Signals

Claimed = list[tuple[int, Job, Saved | None]]


def claim_all(jobs: Sequence[Job]) -> tuple[Claimed, list[Ended]]:
    """The jobs that can start, each with its last checkpoint, and those that ended already.

    A finished run is reported as it is; a folder that holds another run is that job's error.
    """
    claimed, ended = Claimed(), list[Ended]()
    for index, job in enumerate(jobs):
        try:
            if job.folder.finished:
                ended.append(Ended(index=index, result=_reported(job)))
            else:
                claimed.append((index, job, claim(job.spec, job.folder)))
        except GraftlabError as error:
            ended.append(Ended(index=index, error=error))
    return claimed, ended


def _reported(job: Job) -> Result:
    if job.folder.identity() != identity(dump(job.spec)):
        raise ResumeError(f"{job.folder.path} holds a finished run of another configuration.")
    return Result.read(job.folder.path / "result.json")


def settle_shared(jobs: Sequence[Job]) -> Setup:
    """Place, precision, data and rows, as all of these jobs share them. Raises GraftlabError."""
    prompts = max(job.spec.callbacks.samples.prompts for job in jobs)
    return settle(jobs[0].spec, jobs[0].folder, prompts=prompts)


def seat_all(
    shared: Setup, claimed: Claimed, base: Base, *, signals: Signals
) -> tuple[list[Seat], list[Ended]]:
    """A seat for every job whose adapter fits the base; the base is bare again afterwards."""
    seats, ended = list[Seat](), list[Ended]()
    replies: dict[str, dict[int, str]] = {}
    for index, job, resumed in claimed:
        try:
            seats.append(
                _seat(
                    job,
                    index=index,
                    resumed=resumed,
                    shared=shared,
                    base=base,
                    signals=signals,
                    replies=replies,
                )
            )
        except GraftlabError as error:
            ended.append(Ended(index=index, error=error))
        finally:
            if base.adapter is not None:
                base.adapter.detach()
    return seats, ended


def _seat(
    job: Job,
    *,
    index: int,
    resumed: Saved | None,
    shared: Setup,
    base: Base,
    signals: Signals,
    replies: dict[str, dict[int, str]],
) -> Seat:
    """`replies` holds the base's replies by how they are drawn."""
    spec, precision = job.spec, shared.precision
    setup = settle_like(shared, spec, job.folder)
    adapter = base.attach(spec.lora, seed=spec.seed, dtype=precision.adapter_dtype)
    require_stackable(adapter)
    policy = SlicePolicy(base, adapter)
    drawn = json.dumps(dump(spec.generation), sort_keys=True)
    fit = assemble(
        setup,
        adapter,
        signals=signals,
        observer=job.observer,
        policy=policy,
        replies=Replies(
            partial(_alone, adapter, precision.autocast), replies.setdefault(drawn, {})
        ),
    )
    return Seat(
        index=index,
        job=job,
        setup=setup,
        fit=fit,
        adapter=adapter,
        policy=policy,
        standin=StandIn(fit.module, setup.plan, accumulate=spec.accumulate),
        resumed=resumed,
    )


@contextmanager
def _alone(adapter: Adapter, autocast: Callable[[], AbstractContextManager[Any]]) -> Iterator[None]:
    """One adapter on the base, as in a run alone."""
    with adapter.mounted(), autocast():
        yield
