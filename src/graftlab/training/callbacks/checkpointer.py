"""Checkpointer: a run that is stopped, however it is stopped, goes on later."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from lightning.pytorch import LightningModule, Trainer

from graftlab.errors import Interrupted, Paused
from graftlab.training.callbacks.base import StepCallback
from graftlab.training.callbacks.recorder import Recorder
from graftlab.training.callbacks.watchers import due

if TYPE_CHECKING:
    from graftlab.tracking.history import History
    from graftlab.training.checkpoint import Checkpointing, CheckpointStore
    from graftlab.training.module import AdapterModule
    from graftlab.training.observer import Observer
    from graftlab.training.signals import Signals


class Checkpointer(StepCallback):
    """Saves whole optimizer steps: when due, at rungs, when the run ends, when a signal arrives."""

    def __init__(
        self,
        recorder: Recorder,
        spec: Checkpointing,
        store: CheckpointStore,
        history: History,
        signals: Signals,
        *,
        observer: Observer,
    ) -> None:
        self.recorder, self.spec, self.store = recorder, spec, store
        self.history, self.signals, self.observer = history, signals, observer

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make up for what a run did not come to that was stopped right behind its checkpoint."""
        step, last = trainer.global_step, self.store.last()
        if last is None or last.step != step:
            return
        if step in self.observer.keeps and trainer.is_global_zero:
            self.observer.saved(step, last.path)
        if step in self.observer.rungs:
            self._ask(trainer, first_time=False)

    def after_step(self, trainer: Trainer, module: AdapterModule) -> None:
        plan, step = self.recorder.plan, trainer.global_step
        every = {"every_epochs": self.spec.every_epochs, "every_steps": self.spec.every_steps}
        number = self._signal(trainer)
        ends = self.recorder.ends(trainer)
        rung = step in self.observer.rungs
        best = self.recorder.best_step == step
        asked = rung or step in self.observer.keeps or number is not None or trainer.should_stop
        if ends or best or due(step, plan, **every):
            self.save(trainer, ranks=self.recorder.ranks)
        elif asked:  # the run left alone would not have ranked it
            self.save(trainer, ranks=False)
        if number is not None:
            name = signal.Signals(number).name
            raise Interrupted(f"{name}: stopped and saved after step {step}.", 128 + number)
        if rung and not ends and not trainer.should_stop:
            self._ask(trainer, first_time=True)

    def save(self, trainer: Trainer, *, ranks: bool) -> None:
        """Write the checkpoint of the finished step; it appears whole or not at all."""
        row = self.recorder.row if ranks else {}
        path = self.store.path(trainer.global_step, row, self.recorder.ranking)
        if trainer.is_global_zero:
            self.history.sync()  # the rows up to this step are part of it
        trainer.save_checkpoint(self.store.partial(path))
        if trainer.is_global_zero:
            self.store.publish(path)
            self.observer.saved(trainer.global_step, path)
            self.store.prune(self.spec.keep)
        trainer.strategy.barrier()  # nobody looks for a checkpoint before it is there

    def _ask(self, trainer: Trainer, *, first_time: bool) -> None:
        """The verdict, asked once for all processes: all pause or none does. Raises Paused."""
        step, reason = trainer.global_step, None
        if trainer.is_global_zero and (first_time or self.observer.owes(step)):
            reason = self.observer.verdict(step)
        if trainer.world_size > 1:
            reason = trainer.strategy.broadcast(reason)
        if reason is not None:
            raise Paused(reason)

    def _signal(self, trainer: Trainer) -> int | None:
        """The signal any process received, so that all stop after the same step."""
        received = self.signals.received
        if trainer.world_size > 1:
            import torch

            mine = torch.tensor(float(received or 0), device=trainer.strategy.root_device)
            received = int(trainer.strategy.reduce(mine, reduce_op="max")) or None
        return received
