"""The progress of a run, for people (a bar, or lines) and for its observer."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from lightning.pytorch import LightningModule, Trainer

from graftlab.tracking.console import console, say
from graftlab.training.callbacks.base import StepCallback
from graftlab.training.callbacks.recorder import Recorder

if TYPE_CHECKING:
    from graftlab.training.module import AdapterModule
    from graftlab.training.observer import Observer

LINE_SECONDS = 10.0
"""Between two plain lines where there is no terminal to draw a bar on."""


class Onlooker(StepCallback):
    """Tells the run's observer of every step."""

    def __init__(self, recorder: Recorder, observer: Observer) -> None:
        self.recorder, self.observer = recorder, observer

    def after_step(self, trainer: Trainer, module: AdapterModule) -> None:
        if trainer.is_global_zero:
            self.observer.after_step(self.recorder.row)


class ProgressBar(StepCallback):
    """A Rich bar on a terminal; a line every few seconds and at every validation elsewhere."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self._bar: Any = None
        self._task: Any = None
        self._said = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero or not console().is_terminal:
            return
        from rich.progress import (
            BarColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self._bar = Progress(
            TextColumn("[bold]training"),
            BarColumn(bar_width=24),
            TextColumn("step {task.completed:.0f}/{task.total:.0f}  {task.fields[numbers]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(compact=True),
            console=console(),
        )
        total = self.recorder.plan.total_steps
        self._task = self._bar.add_task(
            "training", total=total, completed=trainer.global_step, numbers=""
        )
        self._bar.start()

    def after_step(self, trainer: Trainer, module: AdapterModule) -> None:
        if not trainer.is_global_zero:
            return
        row, step = self.recorder.row, trainer.global_step
        numbers = f"loss {row['loss']:.3f}  {row['tokens_per_second']:,.0f} tok/s"
        validated = "valid_loss" in row
        if validated:
            say(f"  epoch {row['epoch']:.2f}  step {step}  validation loss {row['valid_loss']:.4f}")
        if self._bar is not None:
            self._bar.update(self._task, completed=step, numbers=numbers)
        elif not validated and time.perf_counter() - self._said > LINE_SECONDS:
            self._said = time.perf_counter()
            total = self.recorder.plan.total_steps
            left = (total - step) / max(self.recorder.steps_per_second, 1e-9)
            say(f"  step {step}/{total}  {numbers}  {_clock(left)} left")

    def close(self) -> None:
        """Give the terminal back; called however the run ended."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
