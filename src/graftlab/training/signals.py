"""Signals that stop a run: between steps it saves first; anywhere else it stops at once."""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack
from types import FrameType, TracebackType
from typing import Any, Self

from lightning.pytorch import Callback, LightningModule, Trainer

from graftlab.errors import Interrupted
from graftlab.process import HANGUP, signals_to
from graftlab.training.trainer import LAUNCHED


class Signals(Callback):
    """Owns SIGTERM, SIGINT (Ctrl-C) and SIGHUP for the length of a run, as a context manager.

    While steps are taken the first signal is only noted: the Checkpointer saves after the step and
    stops. Before and after, and for a second signal, `Interrupted` is raised where the run stands.
    A rank has its signals from torchrun, and often from whoever signalled that too: for it, all
    that come while steps are taken are one.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self.stepping = False
        self._handlers: dict[int, Any] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        owned = self._stack.enter_context(signals_to(self._note))
        self._handlers = {number: signal.getsignal(number) for number in owned}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    def _note(self, number: int, frame: FrameType | None) -> None:
        first = self.received in (None, HANGUP)
        if self.stepping and (first or LAUNCHED in os.environ):
            self.received = number
            return
        name = signal.Signals(number).name
        raise Interrupted(f"{name}: stopped between savings; resume=auto goes on.", 128 + number)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)  # Lightning has put handlers of its own over ours

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self.stepping = True

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.stepping = False
