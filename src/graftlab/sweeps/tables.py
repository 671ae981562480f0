"""The tables of a ledger, and what is read and done to them within one transaction."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from graftlab.files.reading import load_json
from graftlab.sweeps.jobs import Job, NewJob, Place, Rung
from graftlab.tracking.folder import RunFolder

SCHEMA = """
CREATE TABLE IF NOT EXISTS facts (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS jobs (
    number INTEGER PRIMARY KEY,
    identity TEXT NOT NULL UNIQUE,
    folder TEXT NOT NULL,
    swept TEXT NOT NULL,
    spec TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'waiting',
    attempts INTEGER NOT NULL DEFAULT 0,
    error TEXT,
    score REAL,
    worker TEXT,
    beat REAL,
    trunk INTEGER,
    branch_step INTEGER,
    progress TEXT NOT NULL DEFAULT '{}'
);
CREATE TABLE IF NOT EXISTS rungs (
    job INTEGER NOT NULL, step INTEGER NOT NULL, total_steps INTEGER NOT NULL, loss REAL,
    goes_on INTEGER, PRIMARY KEY (job, step)
);
CREATE TABLE IF NOT EXISTS wanted (
    launch TEXT NOT NULL, job INTEGER NOT NULL, tries INTEGER NOT NULL DEFAULT 0,
    alone INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (launch, job)
);
CREATE TABLE IF NOT EXISTS claimants (
    launch TEXT NOT NULL, worker TEXT NOT NULL, PRIMARY KEY (launch, worker)
);
"""

OWNED = "(? IS NULL OR (worker = ? AND state = 'running'))"
"""A job that is still the worker's who speaks: one that was silent may have lost it."""

JOBS = """
SELECT number, identity, folder, swept, state, attempts, error, score, worker, beat, trunk,
branch_step, progress, COALESCE(wanted.tries, 0) AS tries, COALESCE(wanted.alone, 0) AS alone
FROM jobs LEFT JOIN wanted ON wanted.job = jobs.number AND wanted.launch = :launch
WHERE :launch IS NULL OR wanted.job IS NOT NULL ORDER BY number
"""

NEW_TRUNK = """
UPDATE jobs SET trunk = ?, branch_step = ? WHERE number = ? AND state IN ('waiting', 'failed')
AND progress = '{}' AND NOT EXISTS (
    SELECT 1 FROM jobs AS former WHERE former.number = jobs.trunk AND former.progress != '{}'
)
"""
"""A job that was told of has begun."""


def read_rungs(db: sqlite3.Connection) -> dict[Place, Rung]:
    """`Ledger.rungs` within a transaction."""
    found: dict[Place, Rung] = {}
    for row in db.execute("SELECT * FROM rungs ORDER BY total_steps, step, job"):
        rung = found.setdefault((row["total_steps"], row["step"]), Rung())
        rung.losses[row["job"]] = float("nan") if row["loss"] is None else row["loss"]
        if row["goes_on"]:
            rung.promoted.add(row["job"])
    return found


def let_go_on(db: sqlite3.Connection, number: int, step: int) -> None:
    """Job `number` is trained on from the rung at `step`."""
    db.execute("UPDATE rungs SET goes_on = 1 WHERE job = ? AND step = ?", (number, step))


def count_crash(db: sqlite3.Connection, number: int, launch: str, error: str) -> None:
    """A try of `launch` at a job has come to nothing."""
    db.execute(
        "UPDATE jobs SET attempts = attempts + 1, error = ? WHERE number = ?", (error, number)
    )
    db.execute("UPDATE wanted SET tries = tries + 1 WHERE launch = ? AND job = ?", (launch, number))


def worked(db: sqlite3.Connection, launch: str, worker: str | None) -> bool:
    """`Ledger.has_claimed` within a transaction."""
    known = db.execute("SELECT 1 FROM claimants WHERE launch = ? AND worker = ?", (launch, worker))
    return known.fetchone() is not None


def read_jobs(db: sqlite3.Connection, launch: str | None) -> list[Job]:
    """`Ledger.jobs` within a transaction."""
    return [_read(row) for row in db.execute(JOBS, {"launch": launch})]


def _read(row: sqlite3.Row) -> Job:
    values = dict(row)
    values["swept"], values["progress"] = load_json(row["swept"]), load_json(row["progress"])
    return Job(**values)


def part(db: sqlite3.Connection, numbers: Sequence[int], launch: str, worker: str) -> None:
    """What these jobs of a worker's shared went wrong: no try of theirs, but each waits alone."""
    db.executemany(
        "UPDATE jobs SET state = 'waiting', worker = NULL WHERE number = ? AND worker = ?",
        [(number, worker) for number in numbers],
    )
    db.executemany(
        "UPDATE wanted SET alone = 1 WHERE launch = ? AND job = ?",
        [(launch, number) for number in numbers],
    )


def jobs_of(db: sqlite3.Connection, worker: str | None) -> list[int]:
    """The jobs that a worker was training when it was last heard of."""
    rows = db.execute("SELECT number FROM jobs WHERE worker = ? AND state = 'running'", (worker,))
    return [row["number"] for row in rows]


def respecify(db: sqlite3.Connection, draft: NewJob, number: int, *, folder: Path) -> None:
    """Take over what this command line says: a ledger that came from elsewhere gives no trust.

    A job that ended by `max_minutes` and has more of them now waits again.
    """
    row = db.execute("SELECT state, folder FROM jobs WHERE number = ?", (number,)).fetchone()
    spec = json.dumps(dict(draft.spec))
    db.execute("UPDATE jobs SET spec = ? WHERE number = ?", (spec, number))
    minutes = draft.spec.get("max_minutes")
    if row["state"] == "done" and RunFolder(folder / row["folder"]).goes_on(minutes):
        db.execute("UPDATE jobs SET state = 'waiting' WHERE number = ?", (number,))


def insert(db: sqlite3.Connection, draft: NewJob, number: int) -> int:
    """Enter a new job under a number, which is returned."""
    db.execute(
        "INSERT INTO jobs (number, identity, folder, swept, spec) VALUES (?, ?, ?, ?, ?)",
        (
            number,
            draft.identity,
            f"{number:04d}-{draft.label}" if draft.label else f"{number:04d}",
            json.dumps(dict(draft.swept)),
            json.dumps(dict(draft.spec)),
        ),
    )
    return number
