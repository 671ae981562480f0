"""The one hook that graftlab's callbacks act in: after a whole optimizer step."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

from lightning.pytorch import Callback, LightningModule, Trainer

if TYPE_CHECKING:
    from graftlab.training.module import AdapterModule
    from graftlab.types import Batch


class StepCallback(Callback):
    """Acts after the micro-batch that ends an optimizer step, in the order callbacks are listed."""

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        if batch.ends_step:
            module: Any = pl_module
            self.after_step(trainer, module)

    @abstractmethod
    def after_step(self, trainer: Trainer, module: AdapterModule) -> None:
        """`trainer.global_step` counts the step that has just ended."""
