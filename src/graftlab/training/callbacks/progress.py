"""The progress of a run, for people (a bar, or lines) and for its observer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightning.pytorch import LightningModule, Trainer

from graftlab.console import console, say
from graftlab.progress import Progress
from graftlab.progress import Row as Line
from graftlab.tracking.history import PREFIX, Row
from graftlab.training.callbacks.base import StepCallback
from graftlab.training.callbacks.recorder import Recorder

if TYPE_CHECKING:
    from graftlab.training.module import AdapterModule
    from graftlab.training.observer import Observer


MOST = 3
"""Measures of replies that are told of a step."""


class ObserverBridge(StepCallback):
    """Tells the run's observer of every step."""

    def __init__(self, recorder: Recorder, observer: Observer) -> None:
        self.recorder, self.observer = recorder, observer

    def after_step(self, trainer: Trainer, module: AdapterModule) -> None:
        if trainer.is_global_zero:
            self.observer.after_step(self.recorder.row)


class ProgressBar(StepCallback):
    """A Rich bar on a terminal; a line every few seconds and at every validation elsewhere."""

    def __init__(self, recorder: Recorder, *, done: int) -> None:
        """`done`: the steps that were taken before, in a run that goes on."""
        self.recorder, self._done = recorder, done
        self._bar: Progress | None = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Before the base is validated, which may take as long as many steps."""
        self._trainer = trainer
        if trainer.is_global_zero:
            total, done = self.recorder.plan.total_steps, self._done
            self._bar = Progress("step", total=total, done=done, console=console(), stays=True)
            self._bar.start()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._bar is not None:
            self._bar.restart()

    def between(self, what: str, done: int, total: int) -> None:
        """So much is done of something that is not a step."""
        if self._bar is not None:
            step, note = max(self._done, self._trainer.global_step), f"{what} {done:,}/{total:,}"
            self._bar.show([Line(step, self.recorder.plan.total_steps, note)])

    def after_step(self, trainer: Trainer, module: AdapterModule) -> None:
        if self._bar is None:
            return
        row, step = self.recorder.row, trainer.global_step
        if told := _measured(row, self.recorder.ranking.column):
            say(f"  epoch {row['epoch']:.2f}  step {step}  {told}")
        numbers = f"loss {row['loss']:.3f}  {row['tokens_per_second']:,.0f} tok/s"
        self._bar.show([Line(step, self.recorder.plan.total_steps, numbers)])

    def close(self) -> None:
        """Give the terminal back; called however the run ended."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def _measured(row: Row, ranking: str) -> str:
    """The validation loss and measures of replies, in words; of many measures the first ones, or
    what steps are ranked by. Empty where nothing was measured.
    """
    replies = [name for name in row if name.startswith(PREFIX) and name.count("/") > 1]
    names = [ranking] if ranking in replies else replies[:MOST]
    told = [f"validation loss {row['valid_loss']:.4f}"] if "valid_loss" in row else []
    return "  ".join([*told, *(f"{name.removeprefix(PREFIX)} {row[name]:.4g}" for name in names)])
