"""The heartbeat of a claimed job: a sign of life while it validates, compiles or loads its base.

A lock says that a worker lives, but not on every network file system to every host. Others go by
the time of the last sign (`claim.SILENCE_SECONDS`); steps give one too, but may be far apart.
"""

from __future__ import annotations

import os
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from graftlab.errors import GraftlabError
from graftlab.sweeps.claim import worker_name
from graftlab.sweeps.ledger import Ledger

BEAT_SECONDS = 30.0
LOST = 4
"""Exit code of a worker whose job was taken over while it gave no sign."""


def _give_up() -> None:
    # Without saving: the folder is somebody else's now.
    print("Another worker has taken this job over: leaving it to that one.", file=sys.stderr)
    sys.stderr.flush()
    os._exit(LOST)


@contextmanager
def heartbeats(
    ledger: Ledger,
    number: int,
    *,
    every: float = BEAT_SECONDS,
    lost: Callable[[], None] = _give_up,
) -> Iterator[None]:
    """Give a sign every `every` seconds that this process works on job `number`.

    `lost` is called, in another thread, when the ledger says that another worker does.
    """
    over = threading.Event()

    def beat() -> None:
        while not over.wait(every):
            try:
                if not _sign(ledger, number):
                    lost()
                    return
            except (sqlite3.Error, GraftlabError):
                continue  # a file system that hangs for a moment: the next beat tells

    thread = threading.Thread(target=beat, name=f"heartbeat of job {number}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _sign(ledger: Ledger, number: int) -> bool:
    """Whether the job is still this process's."""
    with ledger.writing() as db:
        signed = db.execute(
            "UPDATE jobs SET beat = ? WHERE number = ? AND worker = ?",
            (time.time(), number, worker_name()),
        )
    return bool(signed.rowcount)
