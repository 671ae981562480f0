"""Claims: who works on a job holds its lock, and nothing stays claimed by the dead.

The lock is a file lock of the operating system: it is gone with the process that held it, however
that ended. Another host's lock may not be seen on every network file system, so a job of another
host is only taken over when its worker has also been silent for a while.
"""

from __future__ import annotations

import os
import socket
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from graftlab.sweeps.jobs import Job, Place
from graftlab.sweeps.ledger import Ledger, let_go_on, read_jobs, read_rungs
from graftlab.sweeps.rules import Rules, startable

SILENCE_SECONDS = 180.0
"""How long another host's worker is silent before it counts as dead."""


def worker_name() -> str:
    """Host and process, as the ledger says who works on a job."""
    return f"{socket.gethostname()}:{os.getpid()}"


@dataclass(slots=True)
class Claim:
    """A job that is ours until `release`, or until this process is gone."""

    job: Job
    lock: int
    """File descriptor that holds the lock."""

    def release(self) -> None:
        os.close(self.lock)


def claim(
    ledger: Ledger,
    launch: str,
    *,
    rules: Rules,
    retries: int,
    accepts: Callable[[Job], bool] = lambda job: True,
) -> Claim | None:
    """The next job for this worker, marked as running; None if there is none at the moment.

    `accepts` narrows the choice: a joint training takes what fits to what it has.
    """
    with ledger.reading() as db:
        jobs, rungs = read_jobs(db, launch), read_rungs(db)
    for job, rung in startable(jobs, rungs, rules, folder=ledger.folder, retries=retries):
        if not accepts(job) or (job.state == "running" and not _silent(job)):
            continue
        lock = try_lock(lock_file(ledger.folder, job.number))
        if lock is None:
            continue
        with ledger.writing() as db:
            taken = _take(db, job, rung)
        if taken:
            return Claim(job, lock)
        os.close(lock)
    return None


def held(folder: Path, number: int) -> bool:
    """Whether a living process of this host works on the job."""
    lock = try_lock(lock_file(folder, number))
    if lock is None:
        return True
    os.close(lock)
    return False


def lock_file(folder: Path, number: int) -> Path:
    return folder / "locks" / f"{number:04d}.lock"


def try_lock(path: Path) -> int | None:
    """A descriptor that holds the lock until it is closed; None where somebody else does."""
    import fcntl

    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def _take(db: sqlite3.Connection, job: Job, rung: Place | None) -> bool:
    """Mark the job as ours, unless somebody else was served between our look and our lock."""
    taken = db.execute(
        "UPDATE jobs SET state = 'running', worker = ?, beat = ? "
        "WHERE number = ? AND state = ? AND worker IS ?",
        (worker_name(), time.time(), job.number, job.state, job.worker),
    )
    if taken.rowcount and rung is not None:
        let_go_on(db, job.number, rung[1])
    return bool(taken.rowcount)


def _silent(job: Job) -> bool:
    """Whether a running job's worker may be dead; on this host its lock decides alone."""
    host = (job.worker or "").rpartition(":")[0]
    if host == socket.gethostname():
        return True
    return time.time() - (job.beat or 0.0) > SILENCE_SECONDS
