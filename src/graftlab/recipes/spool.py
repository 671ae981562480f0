"""Records on disk: what a step that must see all of them holds instead of memory."""

from __future__ import annotations

import os
import pickle
import tempfile
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from sys import intern

from graftlab.recipes.record import Record

_place: ContextVar[Path | None] = ContextVar("place", default=None)


@contextmanager
def spooling_in(folder: Path) -> Iterator[None]:
    """While inside, records are kept in `folder`: the disk that the result needs room on anyway.

    TMPDIR is often small, in memory, or not there.
    """
    token = _place.set(folder)
    try:
        yield
    finally:
        _place.reset(token)


class Spool:
    """A list of records in a temporary file beside the result, read back by number.

    Eight bytes of memory per record; the file is gone at the end of the `with`.
    """

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(  # noqa: SIM115, __exit__ closes
            prefix=".records-", dir=_place.get()
        )
        self._starts = array("Q", [0])
        self._written = 0

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def add(self, record: Record) -> int:
        """Store a record; returns its number."""
        row = (record.kind, record.body, record.origin, record.source, record.labels)
        data = pickle.dumps(row, protocol=pickle.HIGHEST_PROTOCOL)
        self._file.write(data)
        self._starts.append(self._starts[-1] + len(data))
        return len(self) - 1

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, number: int) -> Record:
        start, end = self._starts[number], self._starts[number + 1]
        if end > self._written:
            self._file.flush()
            self._written = self._starts[-1]
        row = pickle.loads(os.pread(self._file.fileno(), end - start, start))
        kind, body, origin, source, labels = row
        return Record(intern(kind), body, origin, intern(source), labels)

    def __iter__(self) -> Iterator[Record]:
        return (self[number] for number in range(len(self)))
