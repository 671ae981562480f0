"""A run of several processes: torchrun starts them, each builds the run from the same file.

Hydra stays in the process the user started: the ranks read the finished specification, so they
cannot disagree about the run folder, and a sweep's job starts its ranks like any other run.

Torchrun and every rank have one end of a socket as their input, this process the other. For them
it closes when this process is gone, even by SIGKILL, and they save and leave (parent_watch.py).
For this process it closes with the last of them: nobody goes on with a run that is still saved.
Where this process was killed, its ranks may still be saving: the first holds a lock on the run
folder until it is gone, and a new start waits for it.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from graftlab.console import say
from graftlab.errors import CrashError, GraftlabError, Interrupted, Paused
from graftlab.files.locks import hold
from graftlab.files.reading import UnreadableError, read_json
from graftlab.files.writing import write_json
from graftlab.process import one_more_signal, signals_to
from graftlab.registry import dump
from graftlab.tracking.folder import RunFolder
from graftlab.tracking.identity import identity
from graftlab.training.checkpoint import CheckpointStore
from graftlab.training.trainer import LAUNCHED
from graftlab.training.whole import newest_whole

if TYPE_CHECKING:
    from graftlab.training.observer import Observer
    from graftlab.training.spec import TrainSpec

FILE = "ranks.json"
"""In the run folder while its processes run: the specification they build."""
LAST_WORDS = "ranks-end.json"
"""Beside it, from the first process that did not finish: why."""
LOCK = ".ranks.lock"
"""Held by the first process as long as it may read or write in the run folder."""
SHUTDOWN_SECONDS = 600
"""How long a signalled process may take to end its step, validate and save."""
LEAVE_SECONDS = 120
"""How long ranks that a dead torchrun has left behind may take; longer than their own grace."""


def launch(spec: TrainSpec, folder: RunFolder, observer: Observer | None = None) -> None:
    """Run `spec` in `trainer.devices` processes of this machine and wait for them.

    SIGTERM, Ctrl-C and SIGHUP are passed on. Raises Interrupted when the ranks stopped for one of
    them, Paused where the observer said so, the ranks' own GraftlabError, and CrashError when one
    just died.
    """
    folder.take()
    with held_alone(folder.path):
        # The ranks of an earlier start are gone: all of these see what those have saved.
        if spec.resume is not None:
            newest_whole(CheckpointStore(folder.checkpoints), identity(dump(spec), paths=False))
    file, last_words = folder.path / FILE, folder.path / LAST_WORDS
    last_words.unlink(missing_ok=True)
    write_json(file, dump(spec))
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone",
        f"--nproc-per-node={spec.trainer.devices}",
        f"--shutdown-timeout={SHUTDOWN_SECONDS}", "-m", "graftlab.training", str(file),
        *(observer.travels() if observer is not None else ()),
    ]  # fmt: skip
    code, received = _run(command, _environment(spec))
    words = _take(last_words)
    file.unlink(missing_ok=True)
    if received is not None:
        raise Interrupted("stopped by a signal; resume=auto goes on.", 128 + received)
    if words.get("kind") == "paused":
        raise Paused(words["message"])
    if words.get("kind") == "refused":
        raise GraftlabError(words["message"])
    if code != 0 or not folder.finished:
        raise CrashError(
            f"The run's processes ended with code {code}; their messages are above. "
            "What was saved goes on with resume=auto."
        )


@contextmanager
def held_alone(folder: Path) -> Iterator[None]:
    """Hold a run folder; waits while the first process of another start holds it."""

    def wait(holder: str) -> None:
        say(f"Waiting for the processes of an earlier start to leave {folder} ({holder}).")

    with hold(folder / LOCK, what=str(folder), tell=say, wait=wait):
        yield


def leave_word(file: Path, kind: str, message: str) -> None:
    """Note why a process does not finish; only the first one's word counts.

    What follows in the others (signals from torchrun, broken connections) is its consequence.
    """
    try:
        with (file.parent / LAST_WORDS).open("x", encoding="utf-8") as words:
            json.dump({"kind": kind, "message": message}, words)
    except FileExistsError:
        pass


def _environment(spec: TrainSpec) -> dict[str, str]:
    environment = dict(os.environ)
    threads = spec.trainer.threads or max(1, (os.cpu_count() or 1) // spec.trainer.devices)
    environment.setdefault("OMP_NUM_THREADS", str(threads))
    environment[LAUNCHED] = "1"
    return environment


def _run(command: list[str], environment: dict[str, str]) -> tuple[int, int | None]:
    """The exit code of torchrun, and the signal that was passed on to it, if any."""
    # In a session of its own: Ctrl-C reaches this process alone, which passes it on once.
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(
            command, env=environment, stdin=theirs.fileno(), start_new_session=True
        )
    received: list[int] = []

    def forward(number: int, frame: FrameType | None) -> None:
        received.append(number)
        process.send_signal(signal.SIGTERM if len(received) == 1 else signal.SIGKILL)

    with one_more_signal(), signals_to(forward):
        try:
            code = process.wait()
        finally:
            _see_off(ours, wait=len(received) < 2)
    return code, received[0] if received else None


def _see_off(ours: socket.socket, *, wait: bool) -> None:
    """Let ranks go that torchrun has left behind, and wait until the last of them is gone.

    After a second signal nobody waits: they save and leave by themselves (parent_watch.py).
    """
    with ours:
        ours.shutdown(socket.SHUT_WR)
        if not wait:
            return
        ours.settimeout(LEAVE_SECONDS)
        with suppress(TimeoutError):
            while ours.recv(1024):
                pass


def _take(file: Path) -> dict[str, str]:
    """The last words, which go with this start; none where nobody could write them whole."""
    try:
        words: dict[str, str] = read_json(file)
    except (OSError, UnreadableError):
        words = {}
    file.unlink(missing_ok=True)
    return words
