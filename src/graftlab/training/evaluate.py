"""Validation: an objective's numbers over a whole set, without holding logits."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from graftlab.objectives.base import loss_of
from graftlab.objectives.policy import per_document

if TYPE_CHECKING:
    from graftlab.objectives.base import Objective
    from graftlab.objectives.policy import Policy
    from graftlab.packing.loader import PackedLoader
    from graftlab.training.paired import Documents
    from graftlab.types import Batch

Numbers = dict[str, float]
"""`loss`, in what the objective measures (nats per trained token), and whatever it reports."""
Reduce = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What a validation found."""

    numbers: Numbers
    documents: Documents | None
    """The loss of each document, in the same order every time; None if not known."""


class Tally:
    """Adds up what an objective finds in held-out batches."""

    def __init__(self, objective: Objective) -> None:
        self.objective = objective
        self.sums: dict[str, torch.Tensor] = {}
        self.units = 0.0
        self.documents: Documents | None = []

    def add(self, policy: Policy, batch: Batch) -> None:
        """One micro-batch, already on its device."""
        found = self.objective.validation(policy, batch)
        loss = loss_of(self.objective, found, "validation")
        for name, value in found.items():
            total = value.sum().cpu().double()
            self.sums[name] = self.sums.get(name, torch.zeros(()).double()) + total
        self.units += batch.count(self.objective.unit)
        if self.documents is None or loss.dim() == 0:
            self.documents = None
        elif self.objective.unit == "document":
            self.documents += [(value, 1.0) for value in loss.double().tolist()]
        else:
            self.documents += per_document(loss, batch)

    def evaluation(self, reduce: Reduce | None = None, *, device: Any = "cpu") -> Evaluation:
        """All that was added; `reduce` sums a vector on `device` over processes."""
        names = sorted(self.sums)
        totals = torch.stack(
            [*(self.sums[name] for name in names), torch.tensor(self.units).double()]
        )
        if reduce is not None:
            totals = reduce(totals.to(device))
        *values, units = totals.tolist()
        numbers = self.objective.metrics(dict(zip(names, values, strict=True)), units)
        documents = self.documents
        if reduce is not None and documents is not None:
            documents = _gathered(documents, lambda vector: reduce(vector.to(device)).cpu())
        return Evaluation(numbers, documents)


def _gathered(documents: Documents, reduce: Reduce) -> Documents:
    """The documents of all processes, those of the first one first."""
    import torch.distributed as distributed

    rank, world_size = distributed.get_rank(), distributed.get_world_size()
    sizes = torch.zeros(world_size).double()
    sizes[rank] = len(documents)
    ends = reduce(sizes).cumsum(0).long().tolist()
    table = torch.zeros(ends[-1], 2).double()
    if documents:
        first = ends[rank] - len(documents)
        table[first : ends[rank]] = torch.tensor(documents, dtype=torch.float64)
    return [(loss, units) for loss, units in reduce(table).tolist()]


def estimate(
    policy: Policy,
    objective: Objective,
    batches: Iterable[Batch],
    *,
    autocast: Callable[[], AbstractContextManager[Any]],
    reduce: Reduce | None = None,
) -> float:
    """What the objective estimates of mismatched answers, without dropout and gradients.

    `reduce` sums a vector over processes.
    """
    with policy.base.evaluating(), torch.no_grad(), autocast():
        sums = torch.stack([objective.estimate(policy, batch) for batch in batches]).sum(0)
    torch.clear_autocast_cache()  # of weights without a graph, which the loss is about to use
    return mean_of(sums if reduce is None else reduce(sums))


def mean_of(sums: torch.Tensor) -> float:
    """A sum by its count, from (2,); 0 of none."""
    total, count = sums.tolist()
    return float(total / count) if count else 0.0


def validate(
    policy: Policy,
    loader: PackedLoader,
    objective: Objective,
    *,
    autocast: Callable[[], AbstractContextManager[Any]],
    device: torch.device,
    reduce: Reduce | None = None,
    on_batch: Callable[[int, int], None] = lambda done, total: None,
) -> Evaluation:
    """What the objective finds over all documents of `loader`.

    `reduce` sums a vector over processes when the loader is one of several; `on_batch` is told of
    every batch that is done, out of how many.
    """
    if objective.needs_mismatched:
        mixed = (one.to(device) for batch in loader for one in batch.mismatched)
        policy.estimate = estimate(policy, objective, mixed, autocast=autocast, reduce=reduce)
        loader.load_state_dict({"epoch": 0, "done": 0})
    tally = Tally(objective)
    with policy.base.evaluating(), torch.no_grad(), autocast():
        for done, batch in enumerate(loader, start=1):
            tally.add(policy, batch.to(device))
            on_batch(done, len(loader))
    loader.load_state_dict({"epoch": 0, "done": 0})
    return tally.evaluation(reduce, device=device)
