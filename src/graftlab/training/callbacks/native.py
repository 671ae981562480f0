"""Epoch files: checkpoints as the base's own toolkit writes them, the best of them kept.

checkpoints/adapter-epoch1.pt, adapter-epoch3.pt    the best by validation loss
checkpoints/adapter-final.pt                        the end of the run, whatever its loss
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from graftlab.files.checksums import remove
from graftlab.training.callbacks.base import StepCallback
from graftlab.training.callbacks.recorder import Recorder

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

    from graftlab.adapters.base import Adapter
    from graftlab.tracking.history import History
    from graftlab.training.checkpoint import Checkpointing
    from graftlab.training.module import AdapterModule


class EpochFiles(StepCallback):
    """Writes `adapter-epochN` after every N-th epoch and removes what is not among the best."""

    def __init__(
        self, recorder: Recorder, spec: Checkpointing, folder: Path, history: History
    ) -> None:
        self.recorder, self.spec, self.folder, self.history = recorder, spec, folder, history

    def after_step(self, trainer: Trainer, module: AdapterModule) -> None:
        epoch, within = divmod(trainer.global_step, self.recorder.plan.steps_per_epoch)
        every = self.spec.every_epochs
        if within or every is None or epoch % every or not trainer.is_global_zero:
            return
        module.adapter.write_native(_place(self.folder, module.adapter, f"epoch{epoch}"))
        self._prune(module.adapter)

    def _prune(self, adapter: Adapter) -> None:
        """Keep the best by validation loss; without one, the newest."""
        if self.spec.keep == "all":
            return
        losses = {int(row["step"]): row.get("valid_loss") for row in self.history.rows}
        steps = self.recorder.plan.steps_per_epoch

        def rank(path: Path) -> tuple[float, int]:
            epoch = int(path.stem.rpartition("epoch")[2])
            loss = losses.get(epoch * steps)
            return (float("inf") if loss is None else float(loss), -epoch)

        files = self.folder.glob(f"adapter-epoch*{adapter.native}")
        for path in sorted(files, key=rank)[self.spec.keep :]:
            remove(path)


def write_final(adapter: Adapter, folder: Path) -> None:
    """The adapter as the run's end left it, where its base has a toolkit of its own."""
    if adapter.native is not None:
        adapter.write_native(_place(folder, adapter, "final"))


def _place(folder: Path, adapter: Adapter, name: str) -> Path:
    return folder / f"adapter-{name}{adapter.native}"
