"""Is it faster here to train these runs jointly than one after the other? A few passes tell.

Both are timed on the same row of the jobs' own data, with their own adapters: one adapter alone, as
a run alone computes it, and a stack of as many as pass together.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import torch

from graftlab.adapters.attach import attach
from graftlab.models.cache import acquire
from graftlab.models.compile import SAVED_SECONDS, SAVED_SECONDS_PER_PARAMETER
from graftlab.objectives.base import loss_of
from graftlab.objectives.policy import Policy
from graftlab.tracking.folder import RunFolder
from graftlab.training.joint.groups import JointJob
from graftlab.training.joint.scheduler import adapters_at_once
from graftlab.training.joint.setup import resolve_shared_setup
from graftlab.training.joint.stack import SlicePolicy, Stack, base_alone, require_stackable
from graftlab.training.reference import blank_reference
from graftlab.training.run import whether_to_compile

if TYPE_CHECKING:
    from graftlab.adapters.base import Adapter
    from graftlab.models.base import Base
    from graftlab.training.setup import Setup
    from graftlab.training.spec import TrainSpec
    from graftlab.types import Batch

ROUNDS = 2
"""Timed rounds after one that warms up; the fastest counts."""
MARGIN = 1.05
"""Joint training must win by this factor: one run after the other has nothing to agree on."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds of one micro-batch, forward and backward, for one adapter."""

    alone: float
    joint: float
    adapters: int
    """How many passed together."""
    tokens: int


def faster_together(
    jobs: Sequence[JointJob], *, devices: int = 1, tell: Callable[[str], None] = lambda stage: None
) -> tuple[bool, str]:
    """Whether to train these jobs (of one group) jointly on this machine, and why, in words.

    `devices`: how many runs could train at the same time without getting in each other's way, each
    on a device of its own. `tell` is told how far it is. Takes a few passes through the base and
    writes nothing. Raises GraftlabError where the jobs share something that cannot be trained.
    """
    if len(jobs) < 2:
        return False, "a single run has nobody to train with"
    tell("reading the data and loading the base")
    with _bare(jobs) as (shared, base):
        timing = measure(shared, base, [job.spec for job in jobs], tell=tell)
        compiled, _ = whether_to_compile(shared, base)
    alone = timing.alone
    said = f"{timing.adapters} adapters on rows of {timing.tokens:,} tokens: "
    if compiled:
        per_token = SAVED_SECONDS + SAVED_SECONDS_PER_PARAMETER * base.num_parameters
        alone = max(alone / 2, alone - per_token * timing.tokens)
        said += "(alone, layers would be compiled) "
    gain = alone / devices / timing.joint
    said += f"joint takes {timing.joint * 1e3:,.0f} ms an adapter, alone {alone * 1e3:,.0f} ms"
    if devices > 1:
        said += f" on each of {devices} devices"
    return gain > MARGIN, f"{said}; {gain:.2f} times as fast"


@contextmanager
def _bare(jobs: Sequence[JointJob]) -> Iterator[tuple[Setup, Base]]:
    """What the jobs share, and the base; the run folders are left alone."""
    with TemporaryDirectory(prefix="graftlab-joint-") as scratch:
        folder = RunFolder(Path(scratch))
        shared = resolve_shared_setup([JointJob(spec=job.spec, folder=folder) for job in jobs])
        blank_reference(shared)
        precision, device = shared.precision, shared.place.device
        with acquire(shared.spec.model, dtype=precision.base_dtype, device=device) as base:
            yield shared, base


def measure(
    shared: Setup, base: Base, specs: Sequence[TrainSpec], *, tell: Callable[[str], None]
) -> Timing:
    """Time the longest row of `shared` alone and jointly."""
    at_once = adapters_at_once(shared.plan.train, shared.place.device)
    chosen = sorted(specs, key=lambda spec: spec.lora.rank)
    start = max(0, (len(chosen) - at_once) // 2)
    adapters = [_detached(shared, base, spec) for spec in chosen[start : start + at_once]]
    base.set_checkpointing(shared.spec.model.gradient_checkpointing)
    batch = _longest(shared).to(shared.place.device)
    middle = adapters[len(adapters) // 2]
    stack = Stack(base, adapters)
    policies = [SlicePolicy(base, adapter) for adapter in adapters]
    for policy in policies:
        policy.estimate = 0.0
    objective = shared.spec.objective

    def score(policy: SlicePolicy) -> Callable[[Batch], torch.Tensor]:
        def loss(batch: Batch) -> torch.Tensor:
            with shared.precision.autocast():
                terms = objective.terms(policy, batch)
            return loss_of(objective, terms) / batch.step_units

        return loss

    losses = [score(policy) for policy in policies]
    autocast = shared.precision.autocast
    tell(
        f"{ROUNDS + 1} timed passes of {batch.num_tokens:,} tokens, alone and for {len(adapters)} "
        "adapters together"
    )

    def jointly() -> None:
        asked = objective.asks_base()
        other = objective.base_batch(batch)
        bare = base_alone(base, other, autocast=autocast) if asked else None
        stack.backward(batch, policies, losses, autocast=autocast, bare=bare)

    alone, joint = _fastest(lambda: _pass_alone(shared, middle, batch), jointly)
    return Timing(alone, joint / len(adapters), len(adapters), batch.num_tokens)


def _detached(shared: Setup, base: Base, spec: TrainSpec) -> Adapter:
    adapter = attach(base, spec.lora, seed=spec.seed, dtype=shared.precision.adapter_dtype)
    adapter.detach()
    require_stackable(adapter)
    return adapter


def _longest(shared: Setup) -> Batch:
    """The longest micro-batch among the first few of the first epoch."""
    batches = [batch for _, batch in zip(range(8), shared.plan.train, strict=False)]
    return max(batches, key=lambda batch: batch.num_tokens)


def _pass_alone(shared: Setup, adapter: Adapter, batch: Batch) -> None:
    policy = Policy(adapter.base, adapter)
    policy.estimate = 0.0
    with adapter.mounted():
        with shared.precision.autocast():
            terms = shared.spec.objective.terms(policy, batch)
        torch.autograd.backward(terms["loss"] / batch.step_units)


def _fastest(*works: Callable[[], None]) -> list[float]:
    """Seconds of each one's fastest round, after one to warm up.

    In turn, so that what else the machine does meanwhile falls on all of them.
    """

    def timed(work: Callable[[], None]) -> float:
        start = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter() - start

    rounds = [[timed(work) for work in works] for _ in range(ROUNDS + 1)]
    return [min(seconds) for seconds in zip(*rounds[1:], strict=True)]
