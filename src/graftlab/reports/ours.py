"""Which files of a report's folder are of an earlier report: only those are replaced."""

from __future__ import annotations

from pathlib import Path

from graftlab.errors import ConfigError
from graftlab.files.ownership import unwritable
from graftlab.pages.html import GENERATOR
from graftlab.reports.export import CSV, HEAD, PARQUET
from graftlab.reports.page import PAGE


def refuse_foreign(out: Path) -> None:
    """Raise ConfigError where a file that the report would write is there and somebody else's."""
    try:
        others = [name for name in (CSV, PARQUET, PAGE) if not _may_be_written(out / name)]
    except OSError as error:
        raise unwritable(f"out={out}", error) from error
    if others:
        raise ConfigError(
            f"{out} holds {', '.join(others)}, which no report has written: move "
            f"{'it' if len(others) == 1 else 'them'} away, or give another out=DIR."
        )


def _may_be_written(file: Path) -> bool:
    if not file.exists():
        return True
    if not file.is_file():
        return False
    if file.name == PARQUET:
        return _begins_as_ours(file)
    with file.open("rb") as content:
        start = content.read(1000)
    if file.name == CSV:
        return start.startswith(",".join(HEAD).encode())
    return GENERATOR.encode() in start


def _begins_as_ours(file: Path) -> bool:
    """Whether the first columns are ours; unknown, and so no, where pyarrow cannot read it."""
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import read_schema
    except ImportError:
        return True  # nor is it written then
    try:
        return tuple(read_schema(file).names[: len(HEAD)]) == HEAD
    except (ArrowException, OSError):
        return False
