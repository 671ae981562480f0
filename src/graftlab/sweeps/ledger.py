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

from graftlab.errors import GraftlabError
from graftlab.files.checksums import DamagedError
from graftlab.files.locks import hold
from graftlab.files.reading import load_json
from graftlab.sweeps import sums
from graftlab.sweeps.jobs import STATES, Job, NewJob, Place, Rung
from graftlab.sweeps.tables import (
    NEW_TRUNK,
    OWNED,
    count_crash,
    insert,
    jobs_of,
    part,
    read_jobs,
    read_rungs,
    respecify,
    worked,
)

FILE = "ledger.db"
BUSY_SECONDS = 60.0
CHECK_SECONDS = 60.0
DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_FORMAT, sqlite3.SQLITE_NOTADB)
"""Of the file itself."""
REFUSED = (
    *(sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR),
    *(sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM),
)
"""By the disk, or by others who use it."""


class Ledger:
    """The file, opened for a moment by every call: safe in forks, threads and other processes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / FILE
        self._checked = -CHECK_SECONDS

    def create(self) -> None:
        """Make the folder and the tables, unless they are there."""
        locks = self.folder / "locks"
        locks.mkdir(parents=True, exist_ok=True)
        with hold(locks / "ledger.lock", what=str(self.path), wait=lambda holder: None):
            if self.path.exists() and self.path.stat().st_size:
                with self._open():
                    return
            if self.path.exists() and any(self.folder.glob("[0-9][0-9][0-9][0-9]*/run.yaml")):
                raise self._damaged("it is empty")
            try:
                sums.make_file(self.path)
            except sqlite3.OperationalError as error:
                raise GraftlabError(f"{self.path} cannot be used: {error}.") from error

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction: all of it happens, or nothing; nobody else writes meanwhile."""
        with self._open() as db:
            db.execute("BEGIN IMMEDIATE")
            yield db
            db.execute("COMMIT")  # without one, closing rolls back

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A look at the tables as they are."""
        with self._open() as db:
            yield db

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """A connection; the first, and one a minute, checks every row.

        Raises DamagedError, and GraftlabError where the file system refuses.
        """
        # Rollback journals, not WAL: they also work where the folder lies on a network file system.
        try:
            db = sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None)
            try:
                db.row_factory = sqlite3.Row
                # Half the waiting for the disk, and still consistent.
                db.execute("PRAGMA synchronous = NORMAL")
                sums.add_function(db)
                if time.monotonic() - self._checked > CHECK_SECONDS:
                    self._check(db)
                yield db
            finally:
                db.close()
        except UnicodeDecodeError as error:  # a message of SQLite's that quotes what it found
            raise self._damaged(str(error)) from error
        except sqlite3.DatabaseError as error:
            code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF
            if code in DAMAGE:
                raise self._damaged(str(error)) from error
            if code in REFUSED:
                raise GraftlabError(f"{self.path} cannot be used: {error}.") from error
            raise

    def _check(self, db: sqlite3.Connection) -> None:
        try:
            found = sums.problem(db)
        except sqlite3.OperationalError as error:
            if getattr(error, "sqlite_errorcode", None) != sqlite3.SQLITE_ERROR:
                raise
            found = str(error)  # a table that is not there any more
        if found is not None:
            raise self._damaged(found)
        self._checked = time.monotonic()

    def _damaged(self, problem: str) -> DamagedError:
        return DamagedError(
            f"{self.path} is damaged: {problem}. The run folders beside it are not: move it away "
            f"(mv {self.path} {self.path}.damaged) and start the sweep again with the same line "
            "and hydra.sweep.dir; finished runs are taken as they are, unfinished ones go on."
        )

    def add(self, drafts: Sequence[NewJob], *, launch: str) -> list[Job]:
        """Enter the drafts, in order; one that is there already keeps its number and folder.

        `launch` wants them all from now on. Failed jobs that it wants wait again. A job that has
        not begun gets the trunk that it has among these drafts, unless its former one has begun:
        that keeps what the job goes on from.
        """
        with self.writing() as db:
            return self._add(db, drafts, launch)

    def add_to(self, known: int, drafts: Sequence[NewJob], *, launch: str) -> bool:
        """`add`, where there are no more than `known` jobs; False, and nothing done, elsewhere."""
        with self.writing() as db:
            if db.execute("SELECT COUNT(*) FROM jobs").fetchone()[0] != known:
                return False
            self._add(db, drafts, launch)
        return True

    def _add(self, db: sqlite3.Connection, drafts: Sequence[NewJob], launch: str) -> list[Job]:
        rows = db.execute("SELECT identity, number FROM jobs").fetchall()
        known = {row["identity"]: row["number"] for row in rows}
        for draft in drafts:
            if draft.identity not in known:
                known[draft.identity] = insert(db, draft, len(known))
            else:
                respecify(db, draft, known[draft.identity], folder=self.folder)
        trunks = [
            (known.get(d.trunk) if d.trunk else None, d.branch_step, known[d.identity])
            for d in drafts
        ]
        db.executemany(NEW_TRUNK, trunks)
        wanted = [(launch, known[draft.identity]) for draft in drafts]
        db.executemany("INSERT OR IGNORE INTO wanted (launch, job) VALUES (?, ?)", wanted)
        again = [(number,) for _, number in wanted]
        db.executemany(
            "UPDATE jobs SET state = 'waiting' WHERE number = ? AND state = 'failed'", again
        )
        numbers = {number for _, number in wanted}
        return [job for job in read_jobs(db, launch) if job.number in numbers]

    def jobs(self, launch: str | None = None) -> list[Job]:
        """All jobs in the order of their numbers, or those that `launch` wants."""
        with self.reading() as db:
            return read_jobs(db, launch)

    def spec(self, number: int) -> dict[str, Any]:
        """The specification of a job, as `choices.restore` takes it."""
        with self.reading() as db:
            row = db.execute("SELECT spec FROM jobs WHERE number = ?", (number,)).fetchone()
        spec: dict[str, Any] = load_json(row["spec"])
        return spec

    def branch_steps(self, number: int) -> frozenset[int]:
        """The steps after which other jobs leave job `number`."""
        with self.reading() as db:
            rows = db.execute("SELECT branch_step FROM jobs WHERE trunk = ?", (number,)).fetchall()
        return frozenset(row["branch_step"] for row in rows if row["branch_step"] is not None)

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

    def part(self, *, launch: str, worker: str, numbers: Sequence[int] | None = None) -> None:
        """What a worker's jobs shared went wrong: no try of theirs, but each waits to train alone.

        All that it has, or those of them with these `numbers`.
        """
        with self.writing() as db:
            given = jobs_of(db, worker) if numbers is None else numbers
            part(db, given, launch, worker)

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
        return None if value is None else load_json(value)

    def put(self, key: str, value: Any) -> None:
        """Note a fact, over what was noted before."""
        with self.writing() as db:
            db.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (key, json.dumps(value)))

    def settled_fact(self, key: str, value: Any) -> Any:
        """Settle a fact for good: the first to say it is right, and is answered to all others."""
        with self.writing() as db:
            db.execute("INSERT OR IGNORE INTO facts VALUES (?, ?)", (key, json.dumps(value)))
            row = db.execute("SELECT value FROM facts WHERE key = ?", (key,)).fetchone()
        return load_json(row["value"])
