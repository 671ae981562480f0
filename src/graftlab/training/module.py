"""The Lightning module: objective sums in, optimizer steps out; adapter-only checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import lightning
import torch

from graftlab.errors import NonFiniteError, ResumeError
from graftlab.models.finite import describe_nonfinite
from graftlab.objectives.base import loss_of
from graftlab.training.evaluate import estimate
from graftlab.training.sharded import ShardedBase, average_gradients
from graftlab.types import IGNORE

if TYPE_CHECKING:
    from graftlab.adapters.base import Adapter
    from graftlab.objectives.base import Objective
    from graftlab.objectives.policy import Policy
    from graftlab.training.optimizers.base import OptimizerSpec
    from graftlab.types import Batch


class AdapterModule(lightning.LightningModule):
    """Trains a policy's adapter.

    The loss returned for a micro-batch is `sum / step_units * accumulate * world_size`: Lightning
    divides by `accumulate` and DDP averages over `world_size`, so what reaches the optimizer is
    the sum over all labels (or documents) of the step divided by their number, however they were
    batched.
    """

    strict_loading = False  # the frozen base is not in the checkpoint; its fingerprint is

    def __init__(
        self,
        *,
        policy: Policy,
        objective: Objective,
        optimizer: OptimizerSpec,
        lr: float,
        factor: Callable[[int], float],
        autocast: Callable[[], AbstractContextManager[Any]],
        seed: int,
        identity: dict[str, str],
        config: dict[str, Any],
    ) -> None:
        """`identity` names the base, data and settings a checkpoint must share to be resumed;
        `config` is the run's configuration as plain data, kept in every checkpoint.
        """
        super().__init__()
        self.policy, self.objective, self.spec = policy, objective, optimizer
        self.lr, self.factor, self.autocast = lr, factor, autocast
        self.seed, self.identity, self.config = seed, identity, config
        self.network = policy.base.model  # registered, so that strategies place and wrap it
        self.sums: dict[str, torch.Tensor] = {}  # of the current optimizer step
        self.totals: dict[str, float] = {}  # of the last finished one, over all processes
        self.units, self.tokens, self.labels = 0.0, 0, 0  # of the step; labels are trained tokens
        self._labels: list[torch.Tensor] = []
        self.grad_norm = 0.0

    @property
    def adapter(self) -> Adapter:
        assert self.policy.adapter is not None
        return self.policy.adapter

    def cpu(self) -> Self:
        """Stay: Lightning clears the device when it is done, but the base is only lent."""
        return self

    @property
    def means(self) -> dict[str, float]:
        """What is logged of the last finished optimizer step."""
        return self.objective.logged(self.totals, self.units)

    def training_step(self, batch: Batch, _index: int) -> torch.Tensor:
        self.begin(batch)
        if batch.mismatched:
            several = self.trainer.world_size > 1
            self.policy.estimate = estimate(
                self.policy,
                self.objective,
                batch.mismatched,
                autocast=self.autocast,
                reduce=partial(self.trainer.strategy.reduce, reduce_op="sum") if several else None,
            )
        return self.score(batch)

    def begin(self, batch: Batch) -> None:
        """Before a micro-batch's forward pass: count it, and draw its dropout masks."""
        world, rank = self.trainer.world_size, self.trainer.global_rank
        if batch.micro_step == 0:
            self.sums, self.units, self.tokens, self._labels = {}, batch.step_units, 0, []
        self.tokens += batch.num_tokens
        self._labels.append((batch.labels != IGNORE).sum())
        micro_step = batch.micro_step * world + rank
        self.adapter.set_step(seed=self.seed, step=self.global_step, micro_step=micro_step)

    def score(self, batch: Batch) -> torch.Tensor:
        """The micro-batch's loss, its terms added to the step's sums."""
        with self.autocast():
            terms = self.objective.terms(self.policy, batch)
        loss = loss_of(self.objective, terms)
        for name, value in terms.items():
            self.sums[name] = self.sums.get(name, 0) + value.detach()
        parts = self.trainer.accumulate_grad_batches * self.trainer.world_size
        return loss * (parts / batch.step_units)

    def _finish_step(self) -> None:
        """Settle `totals`, `tokens` and `labels` of the step, over all processes."""
        names = sorted(self.sums)
        # Through the CPU, which waits for the device: MPS has no fp64.
        sums = torch.stack([self.sums[name] for name in names]).cpu().double()
        labels = torch.stack(self._labels).sum().cpu().double()
        sums = torch.cat([sums, sums.new_tensor([self.tokens]), labels[None]])
        if self.trainer.world_size > 1:
            sums = self.trainer.strategy.reduce(sums.to(self.device), reduce_op="sum")
        *totals, tokens, labels = sums.tolist()
        self.totals = dict(zip(names, totals, strict=True))
        self.tokens, self.labels = int(tokens), int(labels)

    def configure_optimizers(self) -> Any:
        optimizer = self.spec.build(self.adapter.named_parameters(), lr=self.lr)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, self.factor)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip to the global norm, and refuse to step on a gradient that is not finite.

        Under fp16's loss scaling an overflowing gradient is normal: the scaler skips that step.
        """
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        if isinstance(self.trainer.strategy, ShardedBase):
            average_gradients(parameters, self.trainer.world_size)
        limit = self.spec.clip_norm or float("inf")
        norm = torch.nn.utils.clip_grad_norm_(parameters, limit)
        self.grad_norm = float(norm)
        self._finish_step()
        loss = self.means["loss"]
        scaled = self.trainer.precision_plugin.precision == "16-mixed"
        if loss - loss != 0 or (not scaled and self.grad_norm - self.grad_norm != 0):
            raise NonFiniteError(
                f"Step {self.global_step + 1}: the loss is {loss} and the gradient norm "
                f"{self.grad_norm}; stopped before the update. Lower lr, lengthen the warm-up, or "
                "look at the rows of this step."
            )

    def check_weights(self) -> None:
        """Raises NonFiniteError where the last update left a weight that is not a number.

        Called after every update, so no checkpoint ever holds such weights. The norms are one
        fused pass over what is trained; only where they are not finite is each value looked at.
        """
        weights = self.adapter.named_parameters()
        norms = torch._foreach_norm([weight.detach() for _, weight in weights])
        if bool(torch.isfinite(torch.stack([norm.float() for norm in norms])).all()):
            return
        found = describe_nonfinite(weights)
        if found is None:  # large, but numbers: squares overflow first
            return
        raise NonFiniteError(
            f"Step {self.global_step}: the update left weights that are no numbers: {found}; "
            "stopped before they were saved. Lower lr, lengthen the warm-up, or look at the rows "
            "of this step."
        )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        adapter = self.adapter
        checkpoint["state_dict"] = {}
        checkpoint["adapter"] = adapter.state_dict()
        checkpoint["adapter_config"] = adapter.config_dict()
        checkpoint["run"] = self.config
        checkpoint["identity"] = dict(self.identity)
        checkpoint["objective"] = dict(self.policy.state)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the adapter back. Raises ResumeError for another base, data or configuration."""
        require_same(checkpoint["identity"], self.identity)
        self.adapter.load_state_dict(checkpoint["adapter"])
        self.policy.state = dict(checkpoint["objective"])


def require_same(saved: dict[str, str], wanted: dict[str, str]) -> None:
    """Raise ResumeError naming what a checkpoint and this run do not share."""
    other = [name for name, value in wanted.items() if saved.get(name) != value]
    if other:
        raise ResumeError(
            f"The checkpoint was written with other {' and '.join(other)}: it cannot be resumed "
            "here. Use the same, or lora.from=RUN to start anew from its adapter."
        )
