"""Checkpoints of another make beside ours, by the writers that an adapter brings along."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from graftlab.training.callbacks.base import StepCallback
from graftlab.training.callbacks.recorder import Recorder

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

    from graftlab.adapters.base import CheckpointWriter
    from graftlab.tracking.history import History
    from graftlab.training.checkpoint import Checkpointing
    from graftlab.training.module import AdapterModule


class EpochWriters(StepCallback):
    """Calls the writers after every N-th epoch, `checkpoint.every_epochs`."""

    def __init__(
        self,
        recorder: Recorder,
        spec: Checkpointing,
        history: History,
        writers: Sequence[CheckpointWriter],
    ) -> None:
        self.recorder, self.spec = recorder, spec
        self.history, self.writers = history, writers

    def after_step(self, trainer: Trainer, module: AdapterModule) -> None:
        epoch, within = divmod(trainer.global_step, self.recorder.plan.steps_per_epoch)
        every = self.spec.every_epochs
        if within or every is None or epoch % every or not trainer.is_global_zero:
            return
        losses, keep = self._losses(), None if self.spec.keep == "all" else self.spec.keep
        for writer in self.writers:
            writer.after_epoch(epoch, losses, keep=keep)

    def _losses(self) -> dict[int, float]:
        """Epoch -> validation loss at its end, for those that have one."""
        steps = self.recorder.plan.steps_per_epoch
        rows = {int(row["step"]): row.get("valid_loss") for row in self.history.rows}
        return {
            step // steps: float(loss)
            for step, loss in rows.items()
            if loss is not None and not step % steps
        }
