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
from dataclasses import dataclass, replace
from pathlib import Path

from graftlab.files.locks import try_lock
from graftlab.files.writing import write_atomic
from graftlab.sweeps.jobs import Job, Place
from graftlab.sweeps.ledger import Ledger
from graftlab.sweeps.rules import Rules, startable
from graftlab.sweeps.tables import (
    count_crash,
    jobs_of,
    let_go_on,
    part,
    read_jobs,
    read_rungs,
    worked,
)

SILENCE_SECONDS = 180.0
"""How long another host's worker is silent before it counts as dead."""
DIED = "its process died without a word: most likely it ran out of memory"


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
        """Once is enough; again does nothing."""
        if self.lock >= 0:
            os.close(self.lock)
            self.lock = -1


Accepts = Callable[[Job], bool]
"""Narrows the choice: a joint training takes what fits to what it has."""


def anyone(job: Job) -> bool:
    """Whatever there is."""
    return True


def claimable(
    ledger: Ledger,
    launch: str,
    *,
    rules: Rules,
    retries: int,
    accepts: Accepts = anyone,
) -> list[tuple[Job, Place | None]]:
    """What a worker may try to claim, best first; a paused job with the rung it goes on from.

    Those of a worker that may be dead are among them: only trying tells.
    """
    with ledger.reading() as db:
        jobs, rungs = read_jobs(db, launch), read_rungs(db)
    found = startable(jobs, rungs, rules, folder=ledger.folder, retries=retries)
    return [
        (job, rung)
        for job, rung in found
        if accepts(job) and (job.state != "running" or _silent(job))
    ]


def claim(
    ledger: Ledger,
    launch: str,
    *,
    rules: Rules,
    retries: int,
    accepts: Accepts = anyone,
) -> Claim | None:
    """The next job for this worker, marked as running; None if there is none at the moment.

    A job whose worker has died is taken over. If that was a worker of this launch on this host,
    the job counts as crashed; where it has no try left, in this launch, it fails instead.
    """
    for job, rung in claimable(ledger, launch, rules=rules, retries=retries, accepts=accepts):
        lock = try_lock(lock_file(ledger.folder, job.number))
        if lock is None:
            continue
        with ledger.writing() as db:
            taken = _take(db, job, rung, launch=launch, retries=retries)
        if taken is not None and taken.attempts > job.attempts:
            note_crash(ledger.folder, taken, DIED)
        if taken is not None and taken.state == "running":
            return Claim(taken, lock)
        os.close(lock)
    return None


def lock_file(folder: Path, number: int) -> Path:
    return folder / "locks" / f"{number:04d}.lock"


def note_crash(sweep: Path, job: Job, reason: str) -> None:
    """Leave word in the folder of a job whose process could not."""
    error = sweep / job.folder / "error.txt"
    error.parent.mkdir(exist_ok=True)
    write_atomic(error, f"{reason}\n")


def _take(
    db: sqlite3.Connection, job: Job, rung: Place | None, *, launch: str, retries: int
) -> Job | None:
    """The job, marked as ours, or as failed where its worker's death was the last try it had.

    None if somebody else was served between our look and our lock.
    """
    us = worker_name()
    # A host that fell silent says nothing of the job, nor does a launch that was killed as a whole.
    crashed = job.state == "running" and _is_here(job) and worked(db, launch, job.worker)
    if crashed and job.worker and len(together := jobs_of(db, job.worker)) > 1:
        part(db, together, launch, job.worker)  # they trained together: none is to blame alone
        job, crashed = replace(job, state="waiting", worker=None, alone=1), False
    tries = job.tries + crashed
    failed = job.state == "running" and tries > retries
    taken = db.execute(
        "UPDATE jobs SET state = ?, worker = ?, beat = ? "
        "WHERE number = ? AND state = ? AND worker IS ?",
        (
            *("failed" if failed else "running", None if failed else us, time.time()),
            *(job.number, job.state, job.worker),
        ),
    )
    if not taken.rowcount:
        return None
    if crashed or failed:
        count_crash(db, job.number, launch, DIED)
        job = replace(job, tries=job.tries + 1, attempts=job.attempts + 1, error=DIED)
    if failed:
        return replace(job, state="failed", worker=None)
    if rung is not None:
        let_go_on(db, job.number, rung[1])
    db.execute("INSERT OR IGNORE INTO claimants VALUES (?, ?)", (launch, us))
    return replace(job, state="running", worker=us)


def _silent(job: Job) -> bool:
    """Whether a running job's worker may be dead; on this host its lock decides alone."""
    if _is_here(job):
        return True
    return time.time() - (job.beat or 0.0) > SILENCE_SECONDS


def _is_here(job: Job) -> bool:
    """Whether a running job's worker is, or was, a process of this host."""
    return (job.worker or "").rpartition(":")[0] == socket.gethostname()
