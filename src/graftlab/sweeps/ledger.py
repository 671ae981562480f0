"""The ledger of a sweep: every job, its state and its rungs, in one SQLite file.

SWEEP/
  ledger.db        what this file reads and writes
  locks/0007.lock  held by whoever runs job 7, and free the moment that process is gone
  0007-lr1e-4/     the run folder of job 7, as `graftlab.tracking.folder` describes it

    waiting ──▶ running ──▶ done           claimed by a worker; finished (result.json is there)
       ▲           ├──▶ failed             its error kept; tried again by the next launch
       │           ├──▶ paused ──▶ running fell behind at a rung; goes on if it is promoted
       └───────────┘     └──▶ pruned       nobody is left who could promote it
     stopped, killed

A launch (one command line) wants some of the jobs; two launches share the file and the work.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from graftlab.sweeps.jobs import STATES, Draft, Job, Place, Rung

FILE = "ledger.db"
BUSY_SECONDS = 60.0

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
    PRIMARY KEY (launch, job)
);
CREATE TABLE IF NOT EXISTS claimants (
    launch TEXT NOT NULL, worker TEXT NOT NULL, PRIMARY KEY (launch, worker)
);
"""

OWNED = "(? IS NULL OR (worker = ? AND state = 'running'))"
"""A job that is still the worker's who speaks: one that was silent may have lost it."""

JOBS = """
SELECT number, identity, folder, swept, state, attempts, error, score, worker, beat, trunk,
branch_step, progress, COALESCE(wanted.tries, 0) AS tries FROM jobs
LEFT JOIN wanted ON wanted.job = jobs.number AND wanted.launch = :launch
WHERE :launch IS NULL OR wanted.job IS NOT NULL ORDER BY number
"""


class Ledger:
    """The file, opened for a moment by every call: safe in forks, threads and other processes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / FILE

    def create(self) -> None:
        """Make the folder and the tables, unless they are there."""
        (self.folder / "locks").mkdir(parents=True, exist_ok=True)
        with self.writing() as db:
            for statement in SCHEMA.split(";"):
                db.execute(statement)

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction: all of it happens, or nothing; nobody else writes meanwhile."""
        db = self._open()
        try:
            db.execute("BEGIN IMMEDIATE")
            yield db
            db.execute("COMMIT")
        finally:
            db.close()  # without a commit this rolls back

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A look at the tables as they are."""
        db = self._open()
        try:
            yield db
        finally:
            db.close()

    def _open(self) -> sqlite3.Connection:
        # Rollback journals, not WAL: they also work where the folder lies on a network file system.
        db = sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None)
        db.row_factory = sqlite3.Row
        db.execute("PRAGMA synchronous = NORMAL")  # half the waiting for the disk, still consistent
        return db

    def add(self, drafts: Sequence[Draft], *, launch: str) -> list[Job]:
        """Enter the drafts, in order; one that is there already keeps its number and folder.

        `launch` wants them all from now on. Failed jobs that it wants wait again.
        """
        with self.writing() as db:
            rows = db.execute("SELECT identity, number FROM jobs").fetchall()
            known = {row["identity"]: row["number"] for row in rows}
            fresh = [draft for draft in drafts if draft.identity not in known]
            for draft in fresh:
                if draft.identity not in known:
                    known[draft.identity] = self._insert(db, draft, len(known))
            trunks = [(known.get(d.trunk), known[d.identity]) for d in fresh if d.trunk]
            db.executemany("UPDATE jobs SET trunk = ? WHERE number = ?", trunks)
            wanted = [(launch, known[draft.identity]) for draft in drafts]
            db.executemany("INSERT OR IGNORE INTO wanted (launch, job) VALUES (?, ?)", wanted)
            again = [(number,) for _, number in wanted]
            db.executemany(
                "UPDATE jobs SET state = 'waiting' WHERE number = ? AND state = 'failed'", again
            )
            numbers = {number for _, number in wanted}
            return [job for job in read_jobs(db, launch) if job.number in numbers]

    def _insert(self, db: sqlite3.Connection, draft: Draft, number: int) -> int:
        db.execute(
            "INSERT INTO jobs (number, identity, folder, swept, spec, branch_step) "
            "VALUES (?, ?, ?, ?, ?, ?)",
            (
                number,
                draft.identity,
                f"{number:04d}-{draft.label}" if draft.label else f"{number:04d}",
                json.dumps(dict(draft.swept)),
                json.dumps(dict(draft.spec)),
                draft.branch_step,
            ),
        )
        return number

    def jobs(self, launch: str | None = None) -> list[Job]:
        """All jobs in the order of their numbers, or those that `launch` wants."""
        with self.reading() as db:
            return read_jobs(db, launch)

    def spec(self, number: int) -> dict[str, Any]:
        """The specification of a job, as `choices.restore` takes it."""
        with self.reading() as db:
            row = db.execute("SELECT spec FROM jobs WHERE number = ?", (number,)).fetchone()
        spec: dict[str, Any] = json.loads(row["spec"])
        return spec

    def rungs(self) -> dict[Place, Rung]:
        """Every rung that was reached, in order."""
        with self.reading() as db:
            return read_rungs(db)

    def reach(self, number: int, place: Place, loss: float) -> None:
        """Job `number` has this validation loss at the rung at `place`."""
        total_steps, step = place
        with self.writing() as db:
            db.execute(
                "INSERT INTO rungs (job, step, total_steps, loss) VALUES (?, ?, ?, ?) "
                "ON CONFLICT (job, step) DO UPDATE SET loss = excluded.loss",
                (number, step, total_steps, loss),
            )

    def tell(
        self, number: int, progress: Mapping[str, float], *, worker: str | None = None
    ) -> None:
        """How far a running job is; also the sign of life that other hosts wait for.

        Nothing is noted where the job is not `worker`'s any more (None: whoever has it).
        """
        with self.writing() as db:
            db.execute(
                f"UPDATE jobs SET progress = ?, beat = ? WHERE number = ? AND {OWNED}",
                (json.dumps(dict(progress)), time.time(), number, worker, worker),
            )

    def end(
        self,
        number: int,
        state: str,
        *,
        launch: str,
        score: float | None = None,
        error: str | None = None,
        worker: str | None = None,
    ) -> bool:
        """The worker of a job lets go of it, in `state`; its score stays once it is known.

        False, and nothing is noted, where it is not `worker`'s any more (None: whoever has it).
        """
        assert state in STATES
        with self.writing() as db:
            ended = db.execute(
                "UPDATE jobs SET state = ?, error = ?, score = COALESCE(?, score), worker = NULL "
                f"WHERE number = ? AND {OWNED}",
                (state, error, score, number, worker, worker),
            )
            if ended.rowcount and error is not None:
                count_crash(db, number, launch, error)
        return bool(ended.rowcount)

    def has_claimed(self, launch: str, worker: str) -> bool:
        """Whether a worker of a launch has ever claimed a job."""
        with self.reading() as db:
            return worked(db, launch, worker)

    def prune(self, numbers: Collection[int]) -> None:
        """Nobody is left who could promote these paused jobs."""
        with self.writing() as db:
            db.executemany(
                "UPDATE jobs SET state = 'pruned' WHERE number = ? AND state = 'paused'",
                [(number,) for number in numbers],
            )

    def fact(self, key: str, launch: str | None = None) -> Any:
        """What was settled under `key`, by `launch` itself if it did; None if nothing was."""
        own = f"{key} {launch}"
        with self.reading() as db:
            rows = db.execute("SELECT * FROM facts WHERE key IN (?, ?)", (key, own)).fetchall()
        found = {row["key"]: row["value"] for row in rows}
        value = found.get(own, found.get(key))
        return None if value is None else json.loads(value)

    def put(self, key: str, value: Any) -> None:
        """Note a fact, over what was noted before."""
        with self.writing() as db:
            db.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (key, json.dumps(value)))

    def settle(self, key: str, value: Any) -> Any:
        """Settle a fact for good: the first to say it is right, and is answered to all others."""
        with self.writing() as db:
            db.execute("INSERT OR IGNORE INTO facts VALUES (?, ?)", (key, json.dumps(value)))
            row = db.execute("SELECT value FROM facts WHERE key = ?", (key,)).fetchone()
        return json.loads(row["value"])


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
    values["swept"], values["progress"] = json.loads(row["swept"]), json.loads(row["progress"])
    return Job(**values)
