"""How many rows, micro-batches and optimizer steps a run has, settled before it starts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from graftlab.errors import DataError
from graftlab.packing.loader import PackedLoader
from graftlab.packing.plan import density, plan_rows

if TYPE_CHECKING:
    from graftlab.text.encode import TokenSet
    from graftlab.training.spec import TrainSpec


@dataclass(frozen=True, slots=True)
class StepPlan:
    """The run in numbers; `train` and `valid` are this process's loaders."""

    train: PackedLoader
    valid: PackedLoader | None
    packing_density: float
    steps_per_epoch: int
    total_steps: int
    warmup_steps: int
    tokens_per_step: float  # over all processes

    @property
    def branched(self) -> bool:
        """Whether a document of either set has branches behind a shared prompt."""
        return self.train.branched or (self.valid is not None and self.valid.branched)

    def like(self, spec: TrainSpec) -> StepPlan:
        """The same rows for as many steps as `spec` wants."""
        total = spec.max_steps or spec.epochs * self.steps_per_epoch
        warmup = spec.schedule.warmup(total_steps=total, steps_per_epoch=self.steps_per_epoch)
        return replace(self, total_steps=total, warmup_steps=warmup)


def plan_steps(
    spec: TrainSpec,
    train: TokenSet,
    valid: TokenSet | None,
    *,
    rank: int = 0,
    world_size: int = 1,
) -> StepPlan:
    """Pack both sets and count the steps. Raises DataError if there is nothing to train on.

    With `max_steps` beyond `epochs`, the epochs are extended to reach it: the number of steps is
    what such a run asked for.
    """
    if len(train) == 0:
        raise DataError("No training documents are left: every one was dropped or too long.")
    share: dict[str, Any] = {"batch_size": spec.batch_size, "rank": rank, "world_size": world_size}
    rows = plan_rows(train.lengths.tolist(), spec.packing)
    units = np.ones(len(train), np.int64) if spec.objective.unit == "document" else None
    loader = PackedLoader(
        train, rows, accumulate=spec.accumulate, units=units, seed=spec.seed, **share
    )
    valid_loader = None
    if valid is not None and len(valid):
        valid_rows = plan_rows(valid.lengths.tolist(), spec.packing)
        valid_loader = PackedLoader(valid, valid_rows, seed=None, **share)
    total = spec.max_steps or spec.epochs * loader.steps
    return StepPlan(
        train=loader,
        valid=valid_loader,
        packing_density=density(train.lengths.tolist(), rows, spec.packing.max_length),
        steps_per_epoch=loader.steps,
        total_steps=total,
        warmup_steps=spec.schedule.warmup(total_steps=total, steps_per_epoch=loader.steps),
        tokens_per_step=float(train.lengths.sum()) / loader.steps,
    )
