"""Documents laid end to end while they are encoded: on disk, or in memory where it fails.

DRAFT/  input_ids.npy  labels.npy  offsets.npy  parts.npy  sources.npy      (text/cache.py)
        └── eight bytes a token ┘  and where there are any: segments.npy  segment_offsets.npy
            written as they come                            weights.npy, four bytes a token

A write that fails costs nothing but memory: what is on disk is read back, and the rest stays there.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from graftlab.text.document import Document, shifted
from graftlab.types import PLAIN

_HELD = 1 << 18
"""Values that wait for the next write."""
_PIECE = 1 << 20
"""Values that are read back at a time."""


class Column:
    """Values of four bytes that grow in an .npy file, or in memory without one."""

    def __init__(self, path: Path | None, code: str = "i") -> None:
        """`code` of the standard library's arrays: i for int32, f for float32."""
        self.problem: str | None = None
        self._path, self._file, self._code = path, None, code
        self._values, self._written, self._start = array(code), 0, 0
        if path is not None:
            try:
                self._file = path.open("w+b", buffering=0)
                self._header()
            except OSError as error:
                self._fall_back(error)

    def extend(self, values: np.ndarray) -> None:
        """Add values of its type."""
        self._values.frombytes(values.tobytes())
        if self._file is not None and len(self._values) >= _HELD:
            self._write()

    def finish(self) -> np.ndarray:
        """All values, memory-mapped where they are on disk."""
        if self._file is not None:
            self._write()
        if self._file is not None:
            try:
                self._header()
                self._file.close()
                assert self._path is not None
                found: np.ndarray = np.load(self._path, mmap_mode="r", allow_pickle=False)
                return found
            except OSError as error:
                self._fall_back(error)
        return np.frombuffer(self._values, self._code)

    def close(self) -> None:
        """Let go of the file, finished or not."""
        if self._file is not None:
            self._file.close()

    def _header(self) -> None:
        """numpy leaves room in a header, so that more rows can be said in its place."""
        assert self._file is not None
        self._file.seek(0)
        form: Any = np.lib.format
        kind = form.dtype_to_descr(np.dtype(self._code))
        about = {"descr": kind, "fortran_order": False, "shape": (self._written,)}
        form.write_array_header_1_0(self._file, about)
        assert self._start in (0, self._file.tell()), "the header has outgrown its place"
        self._start = self._file.tell()

    def _write(self) -> None:
        assert self._file is not None
        rest = memoryview(self._values).cast("B")
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            rest.release()
            self._fall_back(error)
            return
        rest.release()
        self._written += len(self._values)
        self._values = array(self._code)

    def _fall_back(self, error: OSError) -> None:
        """Go on in memory, with what was written before."""
        self.problem = error.strerror or str(error)
        file, self._file = self._file, None
        if file is None:
            return
        waiting = self._values
        self._values = array(self._code)
        with file:
            file.seek(self._start)
            for at in range(0, self._written, _PIECE):
                self._values.fromfile(file, min(_PIECE, self._written - at))
        self._values.extend(waiting)


class Flat:
    """The arrays of a token set, in the making; `draft` is the folder for the long ones."""

    def __init__(self, draft: Path | None) -> None:
        self._ids = Column(draft / "input_ids.npy" if draft else None)
        self._labels = Column(draft / "labels.npy" if draft else None)
        self._draft = draft
        self._weights: Column | None = None
        self._offsets, self._parts, self._sources = array("q", [0]), array("i"), array("i")
        self._segments, self._segment_offsets = array("i"), array("q", [0])
        self._branched = False

    def add(self, document: Document, *, source: int) -> None:
        """Shift, and cut after the last label."""
        tokens = shifted(document)
        before, end = self._offsets[-1], self._offsets[-1] + len(tokens)
        self._ids.extend(tokens.input_ids)
        self._labels.extend(tokens.labels)
        self._offsets.append(end)
        self._parts.extend(document.parts)
        self._sources.append(source)
        self._branched |= tokens.segments is not None
        rows = [[len(tokens), -1, PLAIN]] if tokens.segments is None else tokens.segments.tolist()
        for row in rows:
            self._segments.extend(row)
        self._segment_offsets.append(self._segment_offsets[-1] + len(rows))
        if tokens.weights is not None and self._weights is None:
            self._weights = Column(self._draft / "weights.npy" if self._draft else None, "f")
            for at in range(0, before, _PIECE):  # those of the documents before it
                self._weights.extend(np.ones(min(_PIECE, before - at), np.float32))
        if self._weights is not None:
            own = tokens.weights
            self._weights.extend(np.ones(len(tokens), np.float32) if own is None else own)

    @property
    def problem(self) -> str | None:
        """Why the disk did not take the tokens; None when it did."""
        columns = (self._ids, self._labels, self._weights)
        return next((column.problem for column in columns if column and column.problem), None)

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays by name, those of segments and weights only where a document has them; nothing
        can be added afterwards.
        """
        found = {
            "input_ids": self._ids.finish(),
            "labels": self._labels.finish(),
            "offsets": np.frombuffer(self._offsets, np.int64),
            "parts": np.frombuffer(self._parts, np.int32).reshape(-1, 3),
            "sources": np.frombuffer(self._sources, np.int32),
        }
        if self._branched:
            found["segments"] = np.frombuffer(self._segments, np.int32).reshape(-1, 3)
            found["segment_offsets"] = np.frombuffer(self._segment_offsets, np.int64)
        if self._weights is not None:
            found["weights"] = self._weights.finish()
        return found

    def close(self) -> None:
        """Let go of the files, finished or not."""
        for column in (self._ids, self._labels, self._weights):
            if column is not None:
                column.close()


def fingerprint(columns: Mapping[str, Any], keep: np.ndarray | None = None) -> str:
    """Hash of a set of these arrays; with `keep` (n,) bool, that of one of these documents alone.

    Segments and weights count only where a document has others than plain ones.
    """
    offsets = columns["offsets"]
    segments, weights = columns.get("segments"), columns.get("weights")
    spans = [(0, int(offsets[-1]))] if keep is None else list(_spans(offsets, keep))
    digest = hashlib.sha256()
    for name in ("input_ids", "labels"):
        for piece in _pieces(columns[name], spans):
            digest.update(piece)
    if keep is not None:
        lengths = np.diff(offsets)[keep]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    digest.update(np.ascontiguousarray(offsets).data)
    if segments is not None:
        counts = np.diff(columns["segment_offsets"])
        if keep is not None:
            segments, counts = segments[np.repeat(keep, counts)], counts[keep]
        if len(segments) > len(counts) or (segments[:, 2] != PLAIN).any():
            digest.update(np.ascontiguousarray(segments).tobytes() + counts.tobytes())
    if weights is not None and any((weights[start:end] != 1).any() for start, end in spans):
        for piece in _pieces(weights, spans):
            digest.update(piece)
    return digest.hexdigest()[:16]


def _spans(offsets: np.ndarray, keep: np.ndarray) -> Iterator[tuple[int, int]]:
    """Where kept documents lie, neighbours together."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], keep, [False]]).astype(np.int8)))
    for first, last in pairwise(edges):
        if keep[first]:
            yield int(offsets[first]), int(offsets[last])


def _pieces(column: np.ndarray, spans: Iterable[tuple[int, int]]) -> Iterator[bytes]:
    """The bytes of `spans` of an array, a piece at a time.

    Those of a memory map are read from its file: pages once mapped count as this process's memory.
    """
    named = column.filename if isinstance(column, np.memmap) else None
    begin, size = getattr(column, "offset", 0), column.itemsize
    with ExitStack() as stack:
        file = None
        if named is not None and Path(named).is_file():
            file = stack.enter_context(Path(named).open("rb"))
        for start, end in spans:
            for at in range(start, end, _PIECE):
                stop = min(at + _PIECE, end)
                if file is None:
                    yield column[at:stop].tobytes()
                else:
                    file.seek(begin + at * size)
                    yield file.read((stop - at) * size)
