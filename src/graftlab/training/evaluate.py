"""Validation: an objective's numbers over a whole set, without holding logits."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from graftlab.objectives.base import Objective
    from graftlab.objectives.policy import Policy
    from graftlab.packing.loader import PackedLoader
    from graftlab.types import Batch

Numbers = dict[str, float]
"""`loss`, in nats per trained token, and whatever else the objective reports."""


class Tally:
    """Adds up what an objective finds in held-out batches."""

    def __init__(self, objective: Objective) -> None:
        self.objective = objective
        self.sums: dict[str, torch.Tensor] = {}
        self.labels = 0

    def add(self, policy: Policy, batch: Batch) -> None:
        """One micro-batch, already on its device."""
        for name, value in self.objective.validation(policy, batch).items():
            self.sums[name] = self.sums.get(name, torch.zeros(()).double()) + value.cpu().double()
        self.labels += int((batch.labels >= 0).sum())

    def numbers(
        self, reduce: Callable[[torch.Tensor], torch.Tensor] | None = None, *, device: Any = "cpu"
    ) -> Numbers:
        """The metrics of all that was added; `reduce` sums a vector on `device` over processes."""
        names = sorted(self.sums)
        totals = torch.stack(
            [*(self.sums[name] for name in names), torch.tensor(self.labels).double()]
        )
        if reduce is not None:
            totals = reduce(totals.to(device))
        *values, labels = totals.tolist()
        return self.objective.metrics(dict(zip(names, values, strict=True)), int(labels))


def validate(
    policy: Policy,
    loader: PackedLoader,
    objective: Objective,
    *,
    autocast: Callable[[], AbstractContextManager[Any]],
    device: torch.device,
    reduce: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> Numbers:
    """The objective's numbers over all documents of `loader`.

    `reduce` sums a vector over processes when the loader is one of several.
    """
    tally = Tally(objective)
    with policy.base.evaluating(), torch.no_grad(), autocast():
        for batch in loader:
            tally.add(policy, batch.to(device))
    loader.load_state_dict({"epoch": 0, "done": 0})
    return tally.numbers(reduce, device=device)
