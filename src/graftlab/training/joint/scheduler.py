"""The scheduler: who trains in the step at hand, stacked, and the passes they take together.

Runs that are ahead, as others were resumed behind them or have joined later, sit out until those
have caught up: only runs at the same step see the same rows. Not more adapters are stacked than
their rows' activations allow; those beyond form further stacks, and pass one after the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch

from graftlab.objectives.policy import Policy
from graftlab.training.evaluate import Evaluation, Tally, mean_of, validate
from graftlab.training.joint.stack import Stack, base_alone
from graftlab.training.joint.trainer_shim import loader_state

if TYPE_CHECKING:
    from torch import Tensor

    from graftlab.models.base import Base
    from graftlab.packing.loader import PackedLoader
    from graftlab.training.joint.joint_run import JointRun
    from graftlab.training.setup import Setup
    from graftlab.types import Batch

TOKENS_AT_ONCE = {"cpu": 8_192, "cuda": 131_072, "mps": 8_192}
"""Most tokens of one pass, over all adapters: beyond, larger passes cost memory and win nothing."""


class JointScheduler:
    """Seats, the stacks of those that train now, and the rows they share."""

    def __init__(self, base: Base, shared: Setup) -> None:
        self.base, self.shared = base, shared
        self.runs: list[JointRun] = []
        self.active: list[JointRun] = []
        self._stacks: list[tuple[Stack, list[JointRun]]] = []
        self._at_once = adapters_at_once(shared.plan.train, shared.place.device)
        self._batches: Iterator[Batch] = iter(())
        self._rows_at = -1  # the step whose rows come next
        self._evaluations: dict[JointRun, Evaluation] = {}  # of validations measured ahead
        self._baselines: dict[str, Evaluation] = {}  # by objective

    def behind(self) -> tuple[int, list[JointRun]]:
        """The step at which those furthest behind stand, and who they are: they train next."""
        step = min(run.step for run in self.runs)
        return step, [run for run in self.runs if run.step == step]

    def take_runs(self) -> None:
        """Stack the adapters that are furthest behind, unless they are already."""
        step, active = self.behind()
        if active == self.active:
            return
        self._clear()
        self.active = active
        for run in self.runs:
            if run not in active:
                run.wait()
        for first in range(0, len(active), self._at_once):
            members = active[first : first + self._at_once]
            stack = Stack(self.base, [run.adapter for run in members])
            self._stacks.append((stack, members))
        if self._rows_at != step:
            self.shared.plan.train.load_state_dict(loader_state(step, self.shared.plan))
            self._batches, self._rows_at = _without_end(self.shared.plan.train), step

    def leave(self, run: JointRun) -> None:
        """The run is over, or set aside: its adapter has weights of its own again."""
        self.runs.remove(run)
        if run in self.active:
            self._clear()

    def _clear(self) -> None:
        for stack, _ in self._stacks:
            stack.release()
        self._stacks, self.active = [], []

    def passes(self) -> None:
        """All micro-batches of one optimizer step, forward and backward, for all that train."""
        for stack, _ in self._stacks:
            stack.zero_grad()
        for batch in self._batches:
            here = batch.to(self.shared.place.device)
            for run in self.active:
                run.begin(here)
            bare = self._bare(self.shared.spec.objective.base_batch(here))
            for stack, members in self._stacks:
                self._estimate(stack, members, here.mismatched)
                stack.backward(
                    here,
                    [run.policy for run in members],
                    [run.loss for run in members],
                    autocast=self.shared.precision.autocast,
                    bare=bare,
                )
            if batch.ends_step:
                break
        self._rows_at += 1

    def _bare(self, batch: Batch, *, validating: bool = False) -> Tensor | None:
        """What all adapters are told of the base, computed once for all of them."""
        if not self.shared.spec.objective.asks_base(validating=validating):
            return None
        return base_alone(self.base, batch, autocast=self.shared.precision.autocast)

    def baseline(self, run: JointRun) -> Evaluation:
        """Validation of the base alone, measured once for all runs of the same objective."""
        objective = run.job.spec.objective
        if (key := repr(objective)) not in self._baselines:
            valid = self.shared.plan.valid
            assert valid is not None
            self._baselines[key] = validate(
                Policy(self.base, None),
                valid,
                objective,
                autocast=self.shared.precision.autocast,
                device=self.shared.place.device,
            )
        return self._baselines[key]

    def tuned(self, run: JointRun) -> Evaluation:
        """One run's validation; the first that asks measures those of all that are due."""
        if run not in self._evaluations:
            self._evaluations = {}
            for stack, members in self._stacks:
                self._validate(stack, members)
        return self._evaluations.pop(run)

    def _validate(self, stack: Stack, members: Sequence[JointRun]) -> None:
        """`evaluate.validate` for those of one stack that are due."""
        due = [i for i, run in enumerate(members) if run.error is None and run.validates()]
        valid = self.shared.plan.valid
        if not due or valid is None:
            return
        if self.shared.spec.objective.needs_mismatched:
            mixed = [one.to(self.shared.place.device) for b in valid for one in b.mismatched]
            self._estimate(stack, members, mixed)
            valid.load_state_dict({"epoch": 0, "done": 0})
        tallies = {index: Tally(members[index].job.spec.objective) for index in due}
        with torch.no_grad(), self.shared.precision.autocast():
            for batch in valid:
                here = batch.to(self.shared.place.device)
                bare = self._bare(here, validating=True)
                for index in self._each(stack, members, due, here, bare):
                    tallies[index].add(members[index].policy, here)
        valid.load_state_dict({"epoch": 0, "done": 0})
        for index, tally in tallies.items():
            self._evaluations[members[index]] = tally.evaluation()

    def _estimate(
        self, stack: Stack, members: Sequence[JointRun], batches: Sequence[Batch]
    ) -> None:
        """`evaluate.estimate` for those of one stack, all of which see the same batches."""
        if not batches:
            return
        sums: dict[int, Tensor] = {}
        everyone = range(len(members))
        with torch.no_grad(), self.shared.precision.autocast():
            for batch in batches:
                for index in self._each(stack, members, everyone, batch):
                    run = members[index]
                    found = run.job.spec.objective.estimate(run.policy, batch)
                    sums[index] = sums.get(index, 0) + found
        for index, run in enumerate(members):
            run.policy.estimate = mean_of(sums[index])

    def _each(
        self,
        stack: Stack,
        members: Sequence[JointRun],
        chosen: Sequence[int],
        batch: Batch,
        bare: Tensor | None = None,
    ) -> Iterator[int]:
        """One pass for the chosen members of a stack; the policy of each in turn can be asked."""
        with stack.mounted(), stack.only(chosen), self.base.evaluating():
            blocks = stack.hidden(batch).chunk(len(chosen), dim=1)
            for index, block in zip(chosen, blocks, strict=True):
                with members[index].policy.given(block, bare):
                    yield index


def adapters_at_once(loader: PackedLoader, device: torch.device) -> int:
    """How many adapters pass together: as many as the longest micro-batch leaves room for."""
    lengths = loader.tokens.lengths
    rows = sorted((int(lengths[list(row)].sum()) for row in loader.rows), reverse=True)
    longest = sum(rows[: loader.batch_size])
    return max(1, TOKENS_AT_ONCE[device.type] // longest)


def _without_end(loader: PackedLoader) -> Iterator[Batch]:
    """Epoch after epoch."""
    while True:
        yield from loader
