"""The one thread that uses the model: jobs that wait for the same adapter are one batch.

waiting    a a b a c     batch of 4: the three for a, then b, then c
arriving             a   joins the batch that runs where a row of it is free and no other waits
                         before it; models that are not decoded in slots take no more in
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from graftlab.generation.loop import decode
from graftlab.serving.jobs import Failed
from graftlab.serving.requests import RequestError

if TYPE_CHECKING:
    from graftlab.generation.turn import Turn
    from graftlab.models.base import Base
    from graftlab.serving.jobs import Job
    from graftlab.serving.models import ServedModel

GATHER = 0.01
"""Seconds that an idle thread waits for others after the first job: clients ask side by side."""
MOST_WAITING = 256
"""Jobs that may wait; further ones are sent away."""


class Engine:
    """Answers jobs until it is closed."""

    def __init__(
        self, base: Base, autocast: Callable[[], AbstractContextManager[Any]], *, batch: int
    ) -> None:
        """`batch` is the most replies in one forward pass."""
        self.base = base
        self.batch = batch
        self._autocast = autocast
        self._changed = threading.Condition()
        self._waiting: deque[Job] = deque()
        self._running: list[Job] = []
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="model", daemon=True)

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Let `job` be answered. Raises RequestError where too many wait, or it is closed."""
        with self._changed:
            if self._closed:
                raise closing()
            if len(self._waiting) >= MOST_WAITING:
                raise RequestError(
                    "too many requests are waiting: try again later.",
                    status=429,
                    code="rate_limit_exceeded",
                )
            self._waiting.append(job)
            self._changed.notify()

    def close(self) -> None:
        """Give up all jobs, and come to an end; those who wait for one are told."""
        with self._changed:
            self._closed = True
            left = [*self._waiting, *self._running]
            self._waiting.clear()
            self._changed.notify()
        for job in left:
            job.cancel()
            job.tell(Failed(closing()))
        if self._thread.is_alive():
            self._thread.join()

    def _work(self) -> None:
        with self.base.answering():
            while jobs := self._next():
                self._answer(jobs)

    def _answer(self, jobs: list[Job]) -> None:
        model = jobs[0].model

        def more(room: int) -> list[Turn]:
            joining = self._joining(model, room)
            jobs.extend(joining)
            return [turn for job in joining for turn in job.turns]

        try:
            with model.speaking(), self._autocast():
                turns = [turn for job in jobs for turn in job.turns]
                decode(self.base, turns, batch=max(self.batch, len(turns)), more=more)
        except Exception as error:
            for job in jobs:
                job.tell(Failed(error))

    def _next(self) -> list[Job]:
        """The jobs of the next batch; none when it is closed."""
        while True:
            with self._changed:
                self._running = []
                self._changed.wait_for(lambda: self._waiting or self._closed)
            time.sleep(GATHER)
            with self._changed:
                if self._closed:
                    return []
                self._running = self._taken()
                if self._running:
                    return self._running

    def _joining(self, model: ServedModel, room: int) -> list[Job]:
        """The jobs for `model` that have waited longest of all and fit into so many rows."""
        with self._changed:
            joining: list[Job] = []
            while self._waiting and self._waiting[0].model is model:
                room -= len(self._waiting[0].turns)
                if room < 0:
                    break
                joining.append(self._waiting.popleft())
            self._running += joining
            return joining

    def _taken(self) -> list[Job]:
        """The first job that somebody waits for, and those for the same model that fit beside."""
        taken: list[Job] = []
        left: deque[Job] = deque()
        rows = 0
        for job in self._waiting:
            if job.cancelled:
                continue
            fits = rows + len(job.turns) <= self.batch
            if not taken or (job.model is taken[0].model and fits):
                taken.append(job)
                rows += len(job.turns)
            else:
                left.append(job)
        self._waiting = left
        return taken


def closing() -> RequestError:
    """What is said to those who wait, or come, when the end has begun."""
    return RequestError("the server is being stopped.", status=503)
