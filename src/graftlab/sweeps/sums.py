"""Checksums of a ledger's rows: kept by triggers in the table `sums`, compared when it is opened.

SQLite notices a broken page, not a flipped digit in a cell. Every connection brings the function
`xxh3(value, ...)` that the triggers call, so nobody else can write without being noticed.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any

from graftlab.files.checksums import checksum_of
from graftlab.files.writing import atomic_file, clear_leftovers
from graftlab.sweeps.tables import SCHEMA

_TABLE = "CREATE TABLE IF NOT EXISTS sums (tab TEXT, id INTEGER, xxh3 TEXT, PRIMARY KEY (tab, id))"
_MAKE = """CREATE TRIGGER IF NOT EXISTS {table}_{event} AFTER {event} ON {table} BEGIN
DELETE FROM sums WHERE tab = '{table}' AND id = {gone}.rowid; {then}END"""
_ADD = "INSERT INTO sums VALUES ('{table}', NEW.rowid, {xxh3}); "


def add_function(db: sqlite3.Connection) -> None:
    """Give a connection what the triggers need; rows that are replaced count as deleted."""
    db.create_function("xxh3", -1, _xxh3, deterministic=True)
    db.execute("PRAGMA recursive_triggers = ON")


def create(db: sqlite3.Connection) -> None:
    """Make all tables and triggers that are not there."""
    for statement in _statements():
        db.execute(statement)


def make_file(path: Path) -> None:
    """Make the file under another name: whoever looks meanwhile sees none, or all tables.

    Raises sqlite3.OperationalError where the disk refuses.
    """
    clear_leftovers(path.parent)
    with atomic_file(path) as draft, closing(sqlite3.connect(draft, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = MEMORY")
        add_function(db)
        db.execute("BEGIN")
        create(db)
        db.execute("COMMIT")


def problem(db: sqlite3.Connection) -> str | None:
    """What is not as it was written; None where all is. Raises sqlite3.DatabaseError, too."""
    if (found := db.execute("PRAGMA integrity_check(1)").fetchone()[0]) != "ok":
        return str(found)
    if _schema(db) != _wanted():
        return "its tables are not those of a ledger"
    for table, columns in _tables().items():
        wrong = db.execute(
            f"SELECT t.rowid FROM {table} AS t LEFT JOIN sums ON tab = '{table}' AND id = t.rowid "
            f"WHERE sums.xxh3 IS NOT {_call('t', columns)} UNION ALL SELECT id FROM sums "
            f"WHERE tab = '{table}' AND id NOT IN (SELECT rowid FROM {table}) LIMIT 1"
        ).fetchone()
        if wrong is not None:
            return f"row {wrong[0]} of its table `{table}` is not as it was written"
    return None


def _xxh3(*values: Any) -> str:
    return checksum_of(repr(values).encode("utf-8", "surrogatepass"))


def _call(row: str, columns: list[str]) -> str:
    return f"xxh3({', '.join(f'{row}.{column}' for column in columns)})"


def _schema(db: sqlite3.Connection) -> list[tuple[Any, ...]]:
    found = db.execute("SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY type, name")
    return [tuple(row) for row in found]


@cache
def _tables() -> dict[str, list[str]]:
    """Table -> its columns."""
    db = sqlite3.connect(":memory:")
    db.executescript(SCHEMA)
    names = [row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    found = {name: [row[1] for row in db.execute(f"PRAGMA table_info({name})")] for name in names}
    db.close()
    return found


@cache
def _statements() -> list[str]:
    made = [*filter(str.strip, SCHEMA.split(";")), _TABLE]
    for table, columns in _tables().items():
        add = _ADD.format(table=table, xxh3=_call("NEW", columns))
        for event, gone, then in (("INSERT", "NEW", add), ("UPDATE", "OLD", add)):
            made.append(_MAKE.format(table=table, event=event, gone=gone, then=then))
        made.append(_MAKE.format(table=table, event="DELETE", gone="OLD", then=""))
    return made


@cache
def _wanted() -> list[tuple[Any, ...]]:
    """The schema that a ledger has."""
    db = sqlite3.connect(":memory:")
    create(db)
    found = _schema(db)
    db.close()
    return found
