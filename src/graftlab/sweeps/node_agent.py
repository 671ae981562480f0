"""The agent of a node that a cluster lends for a while: it tends one worker there.

cluster's node
└── agent            told by the cluster that time is up; tends its worker like a pool of one
    └── worker       claims jobs from the ledger on the shared file system, saves when told to
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from graftlab.errors import GraftlabError
from graftlab.sweeps.engine import LOOK_SECONDS
from graftlab.sweeps.ledger import Ledger
from graftlab.sweeps.pool import PROGRAM, Pool
from graftlab.sweeps.slots import Slot

WORD_SECONDS = 120.0
"""How long an agent whose worker was signalled waits for the cluster's own word."""


class NodeAgent:
    """Runs a worker when called, until no job is left or `leave` is called.

    A cluster carries it to where it runs, as the values that it was made with.
    """

    def __init__(
        self,
        sweep: Path,
        launch: str,
        *,
        environment: Mapping[str, str],
        retries: int,
        program: Sequence[str] = PROGRAM,
    ) -> None:
        """`program`: what Python is started with."""
        self.sweep, self.launch = sweep, launch
        self.environment, self.retries = dict(environment), retries
        self.program = program
        self._anew = partial(
            NodeAgent,
            sweep,
            launch,
            environment=self.environment,
            retries=retries,
            program=program,
        )
        self._told = threading.Event()
        self._number = signal.SIGTERM
        self._over = threading.Event()
        self._pool: Pool | None = None

    def __call__(self) -> None:
        """Tend the worker. Raises GraftlabError where workers end before they can work."""
        problems: list[GraftlabError] = []

        def tend() -> None:
            try:
                self._tend()
            except GraftlabError as problem:
                problems.append(problem)
            finally:
                self._over.set()

        # In a thread: `leave` may be called by a signal handler, which must not wait for what the
        # very code that it interrupts would have to do.
        threading.Thread(target=tend, name="agent").start()
        while not self._over.wait(LOOK_SECONDS):  # wakes up for signals
            pass
        if problems:
            raise problems[0]

    def leave(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Have the worker save and leave (or die, with SIGKILL), and wait for it.

        While it saves, SIGKILL ends it at once.
        """
        if number == signal.SIGKILL and self._told.is_set() and self._pool is not None:
            self._pool.stop(number)
        self._number = number
        self._told.set()
        self._over.wait()

    def checkpoint(self) -> Any:
        """What submitit calls when the time is nearly up or the node is wanted for others: save,
        and say with what the requeued job goes on."""
        from submitit.helpers import DelayedSubmission

        self.leave()
        return DelayedSubmission(self._anew())

    def __reduce__(self) -> tuple[Any, ...]:
        return self._anew, ()

    def _tend(self) -> None:
        pool = self._pool = Pool(
            Ledger(self.sweep),
            self.launch,
            [Slot("agent", self.environment)],
            self.retries,
            replaces_stopped=False,  # whoever signalled the worker wants this place back
            program=self.program,
        )
        if self._told.is_set():
            return
        try:
            pool.start()
            while not self._told.is_set() and pool.poll():
                self._told.wait(LOOK_SECONDS)
            if pool.signalled:
                # Slurm signals all processes of a node it takes back, the agent a moment later:
                # one that had left by then would count as done, and not be queued again.
                self._told.wait(WORD_SECONDS)
        finally:
            if self._told.is_set():
                pool.stop(self._number)
            pool.close()
