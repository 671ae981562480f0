"""Launches of a sweep: what each keeps in the ledger while it is there, and how it is forgotten.

    locks/launch-1f3c.lock    held by the process that launched; free the moment that is gone

What a launch has noted is of use as long as it is at work. One whose workers outlive its process
(on a cluster) has a name of its own, and is never taken for dead.
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from graftlab.files.locks import try_lock
from graftlab.sweeps.ledger import Ledger

OF_A_LAUNCH = ("closed", "halted", "watched", "rules", "retries", "home")
"""Facts that are each launch's own, kept as `rules LAUNCH`; for `rules` and `retries` there is one
of the sweep as well, for launches that have not said. `home` is the host of its process."""


@contextmanager
def present(ledger: Ledger, name: str | None = None) -> Iterator[str]:
    """The name of a launch that is there as long as this block; nothing is left of it behind.

    One with a `name` given is begun anew, and what it has noted stays for its workers.
    """
    if name is not None:
        _begin_anew(ledger, name)
        yield name
        return
    forget_the_dead(ledger)
    name = secrets.token_hex(4)
    file = _lock_file(ledger, name)
    lock = try_lock(file)
    assert lock is not None, "nobody else knows the name"
    ledger.put(f"home {name}", socket.gethostname())
    try:
        yield name
    finally:
        forget(ledger, name)  # all of its workers are gone
        file.unlink(missing_ok=True)
        os.close(lock)


def forget_the_dead(ledger: Ledger) -> None:
    """Remove what launches have left whose processes were killed on this host."""
    with ledger.reading() as db:
        homes = db.execute("SELECT key, value FROM facts WHERE key LIKE 'home %'").fetchall()
    here = [row["key"].split()[1] for row in homes if row["value"] == f'"{socket.gethostname()}"']
    for name in here:
        lock = try_lock(_lock_file(ledger, name))
        if lock is not None:
            forget(ledger, name)
            _lock_file(ledger, name).unlink(missing_ok=True)
            os.close(lock)


def _begin_anew(ledger: Ledger, launch: str) -> None:
    """Forget what an earlier start of this launch wanted, but for what its workers are at."""
    with ledger.writing() as db:
        for fact in ("closed", "halted"):
            db.execute("DELETE FROM facts WHERE key = ?", (f"{fact} {launch}",))
        db.execute(
            "DELETE FROM wanted WHERE launch = ? "
            "AND job NOT IN (SELECT number FROM jobs WHERE state = 'running')",
            (launch,),
        )
        db.execute("UPDATE wanted SET tries = 0 WHERE launch = ?", (launch,))


def forget(ledger: Ledger, launch: str) -> None:
    """Remove what was only of use while a launch was at work."""
    with ledger.writing() as db:
        for table in ("wanted", "claimants"):
            db.execute(f"DELETE FROM {table} WHERE launch = ?", (launch,))
        for key in OF_A_LAUNCH:
            db.execute("DELETE FROM facts WHERE key = ?", (f"{key} {launch}",))


def give_up_paused(ledger: Ledger, launch: str) -> None:
    """Paused jobs are pruned once no launch wants a job any more that could promote them."""
    forget_the_dead(ledger)
    with ledger.reading() as db:
        awaited = db.execute(
            "SELECT 1 FROM jobs JOIN wanted ON wanted.job = jobs.number "
            "WHERE state IN ('waiting', 'running')"
        ).fetchone()
    if awaited is not None:
        return
    ledger.prune([job.number for job in ledger.jobs(launch) if job.state == "paused"])


def _lock_file(ledger: Ledger, launch: str) -> Path:
    return ledger.folder / "locks" / f"launch-{launch}.lock"
