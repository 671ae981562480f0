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

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def add(self, record: Record) -> int:
        """Store a record; returns its number."""
        data = pickle.dumps(record, protocol=pickle.HIGHEST_PROTOCOL)
        self._file.write(data)
        self._starts.append(self._starts[-1] + len(data))
        return len(self) - 1

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, number: int) -> Record:
        start, end = self._starts[number], self._starts[number + 1]
        self._file.flush()
        record: Record = pickle.loads(os.pread(self._file.fileno(), end - start, start))
        return record

    def __iter__(self) -> Iterator[Record]:
        return (self[number] for number in range(len(self)))
