"""Worker processes over the slots: started, watched, replaced when they die, stopped.

A worker's crash costs the job it was at one try, and no other job anything.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from graftlab.errors import GraftlabError
from graftlab.sweeps.claim import note_crash
from graftlab.sweeps.ledger import Ledger
from graftlab.sweeps.slots import Slot

PROGRAM = ("-m", "graftlab.sweeps")
STILLBORN = 3
"""So many workers in a row that die before they have claimed a job end the launch."""
LEFT_WITH_REASON = (3, 75)
"""Exit codes of workers that have settled their job and want to be replaced (sweeps/worker.py)."""
SIGNALLED = tuple(128 + number for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP))
"""Exit codes of workers that were told to stop, and saved."""
KILLED = "killed; the same line goes on from the last checkpoints."
"""What people are told after a second signal."""
LONGEST_STOP = 600.0
"""Seconds that stopped workers may take to end their step and save."""


@dataclass(slots=True)
class _Process:
    slot: Slot
    popen: subprocess.Popen[bytes]

    @property
    def worker(self) -> str:
        return f"{socket.gethostname()}:{self.popen.pid}"


@dataclass(slots=True)
class Pool:
    """One worker process a slot."""

    ledger: Ledger
    launch: str
    slots: Sequence[Slot]
    retries: int
    extra: Sequence[str] = ()
    """Further arguments of every worker."""
    program: Sequence[str] = PROGRAM
    """What Python is started with."""
    replaces_stopped: bool = True
    """Whether a worker that somebody else has signalled is replaced."""
    parting: str = "saved; the same line goes on."
    stopping: bool = False
    signalled: bool = False
    """Whether somebody else has signalled a worker."""
    _running: list[_Process] = field(default_factory=list)
    _stillborn: int = 0
    _told: int | None = None
    """The signal that workers were stopped with."""

    @property
    def log(self) -> Path:
        """What workers print between jobs."""
        return self.ledger.folder / "workers.log"

    def start(self) -> None:
        for slot in self.slots:
            self._spawn(slot)

    def poll(self) -> bool:
        """Replace the dead; whether any worker is left. Raises GraftlabError if none can start."""
        for process in list(self._running):
            code = process.popen.poll()
            if code is None:
                continue
            self._running.remove(process)
            self._bury(process, code)
            claimed = self.ledger.has_claimed(self.launch, process.worker)
            self.signalled |= code in SIGNALLED and not self.stopping
            if code == 0 or self.stopping or (code in SIGNALLED and not self.replaces_stopped):
                continue
            born = claimed or code in LEFT_WITH_REASON
            self._stillborn = 0 if born else self._stillborn + 1
            if self._stillborn >= STILLBORN:
                self.stop(signal.SIGTERM)
                raise GraftlabError(
                    f"Workers of the sweep end before they have claimed a job (code {code}). The "
                    f"last lines of {self.log}:\n{_tail(self.log)}"
                )
            self._spawn(process.slot)
        return bool(self._running)

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Tell every worker to save and leave, one that is about to start as soon as it has."""
        self.stopping, self._told = True, number
        if number == signal.SIGKILL:
            self.parting = KILLED
        for process in self._running:
            if process.popen.poll() is None:
                process.popen.send_signal(number)

    def close(self) -> None:
        """Stop whatever still runs and wait for it; called however the launch ended."""
        self.stop()
        deadline = time.monotonic() + LONGEST_STOP
        for process in self._running:
            try:
                code = process.popen.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.popen.kill()
                code = process.popen.wait()
            self._bury(process, code)
        self._running.clear()

    def _spawn(self, slot: Slot) -> None:
        if self.stopping:
            return
        command = [
            *(sys.executable, *self.program),
            *(str(self.ledger.folder), self.launch, *self.extra),
        ]
        with self.log.open("ab") as log:
            popen = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,  # it closes with this process, however that ends
                stdout=log,
                stderr=log,
                env={**os.environ, **slot.environment},
                start_new_session=True,  # Ctrl-C reaches the launcher, which passes it on once
            )
        self._running.append(_Process(slot, popen))
        if self._told is not None:  # meanwhile, by a signal handler that did not know of this one
            popen.send_signal(self._told)

    def _bury(self, process: _Process, code: int) -> None:
        """Settle what a dead worker left running, unless another has taken it over already."""
        if process.popen.stdin:
            process.popen.stdin.close()
        left = [
            job
            for job in self.ledger.jobs(self.launch)
            if job.worker == process.worker and job.state == "running"
        ]
        stopped = self.stopping or code in SIGNALLED
        if len(left) > 1 and not stopped:
            # They trained together: which of them was too much, nobody knows.
            self.ledger.part(launch=self.launch, worker=process.worker)
            return
        for job in left:
            ends = partial(self.ledger.end, job.number, launch=self.launch, worker=process.worker)
            if stopped:
                ends("waiting")
                continue
            reason = _reason(code)
            if ends("waiting" if job.tries < self.retries else "failed", error=reason):
                note_crash(self.ledger.folder, job, reason)


def _reason(code: int) -> str:
    if code == -signal.SIGKILL:
        return "its process was killed (signal 9): most likely it ran out of memory"
    if code < 0:
        return f"its process died of {signal.Signals(-code).name}"
    return f"its process ended with code {code}"


def _tail(path: Path) -> str:
    try:
        return "\n".join(path.read_text(encoding="utf-8", errors="replace").splitlines()[-12:])
    except OSError:
        return ""
