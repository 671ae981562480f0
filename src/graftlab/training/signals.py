"""SIGTERM and Ctrl-C: between steps a run saves and stops; anywhere else it stops at once."""

from __future__ import annotations

import os
import signal
from types import FrameType, TracebackType
from typing import Any, Self

from lightning.pytorch import Callback, LightningModule, Trainer

from graftlab.errors import Interrupted
from graftlab.training.trainer import LAUNCHED

NUMBERS = (signal.SIGTERM, signal.SIGINT)


class Signals(Callback):
    """Owns both signals for the length of a run, as a context manager around all of it.

    While steps are taken the first signal is only noted: the Checkpointer saves after the step and
    stops. Before and after, and for a second signal, `Interrupted` is raised where the run stands.
    A rank has its signals from torchrun, and often from whoever signalled that too: for it, all
    that come while steps are taken are one.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self.stepping = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Self:
        try:
            self._previous = {number: signal.signal(number, self._note) for number in NUMBERS}
        except ValueError:  # not the main thread: nobody signals us there
            self._previous = {}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.stepping and (self.received is None or LAUNCHED in os.environ):
            self.received = number
            return
        name = signal.Signals(number).name
        raise Interrupted(f"{name}: stopped between savings; resume=auto goes on.", 128 + number)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._previous:  # Lightning has put handlers of its own over ours
            for number in NUMBERS:
                signal.signal(number, self._note)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self.stepping = True

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.stepping = False
