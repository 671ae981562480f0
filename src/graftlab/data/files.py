"""Data files as rows: JSONL or a JSON array, told apart by content, never by name.

bytes ──▶ (gzip) ──▶ UTF-8 (BOM dropped) ──▶ JSONL        streamed; a broken line is one problem
                                        └──▶ JSON array   streamed; one row per element
                                        └──▶ one object   pretty-printed: a single row
"""

from __future__ import annotations

import codecs
import glob
import gzip
import json
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, cast

from graftlab.data import arrays
from graftlab.data.arrays import (
    Broken,
    JsonStream,
    RawRow,
    TooLong,
    array_rows,
    element,
    is_message_list,
    not_utf8,
)
from graftlab.data.decoding import Decoder, broken_reason
from graftlab.data.kinds import HEAD, binary_problem, text_problem
from graftlab.errors import ConfigError, did_you_mean
from graftlab.files.reading import TOO_DEEP

_WIDE_MARKS = (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_WIDE_ZEROS = ([True, False, True, False], [False, True, False, True])
_GZIP_MARK = b"\x1f\x8b"
_DAMAGED = (EOFError, gzip.BadGzipFile, zlib.error)
_PIECE = 2**20


def locate(key: str, patterns: Any) -> list[Path]:
    """The files that `patterns` (a path, a glob, or a list of them) names, without repeats.

    Raises ConfigError naming `key` for a missing file, an empty glob or a folder.
    """
    given = [patterns] if isinstance(patterns, str | Path) else patterns
    if not isinstance(given, list | tuple) or not all(isinstance(p, str | Path) for p in given):
        raise ConfigError(f"{key}={patterns} must be a file, a glob, or a list of files.")
    found: dict[Path, None] = {}
    for pattern in given:
        for path in _expand(key, str(pattern)):
            found[path] = None
    return list(found)


def _expand(key: str, pattern: str) -> list[Path]:
    path = Path(pattern).expanduser()
    if path.is_file():
        return [path]
    if path.is_dir():
        raise ConfigError(f"{key}={pattern} is a folder; name its files: {key}='{pattern}/*.jsonl'")
    if path.exists():
        raise ConfigError(f"{key}={pattern} is a device or a pipe: write what it gives to a file.")
    if glob.has_magic(pattern):
        matches = sorted(glob.glob(str(path), recursive=True))
        files = [Path(match) for match in matches if Path(match).is_file()]
        if files:
            return files
        raise ConfigError(f"{key}={pattern} matches no file{_neighbours(path)}")
    raise ConfigError(f"{key}={pattern} does not exist{_neighbours(path)}")


def _neighbours(path: Path) -> str:
    """What lies where the file was looked for, the closest name first."""
    folder = path.parent
    while not folder.is_dir():
        path, folder = folder, folder.parent
    names = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
    if hint := did_you_mean(path.name, names):
        return f".{hint} (in {folder.resolve()})"
    data = [name for name in names if name.endswith((".jsonl", ".json"))]
    found = f"there is {', '.join(data[:6])}" if data else "there are no JSON files"
    return f": in {folder.resolve()} {found}."


def read_rows(path: Path) -> Iterator[RawRow]:
    """Rows of one file, in order; blank lines are passed over, gzip is unpacked on the way.

    One row is in memory at a time. What cannot be parsed is yielded as a row with a `problem`, so
    that nothing disappears unseen.
    """
    line = 0
    try:
        with open_data(path) as file:
            for row in _rows(file, path):
                line = row.line
                yield row
    except _DAMAGED as error:
        yield RawRow(line + 1, "", damaged(error), ends=True)


def open_data(path: Path) -> IO[bytes]:
    """The bytes of a file, unpacked where it is gzip."""
    with path.open("rb") as start:
        packed = start.read(2) == _GZIP_MARK
    file = gzip.open(path, "rb") if packed else path.open("rb")  # noqa: SIM115, the caller closes
    return cast("IO[bytes]", file)


def damaged(error: Exception) -> str:
    """What to say about a gzip file that cannot be unpacked."""
    return f"the gzip file is damaged or cut short ({error}): fetch or pack it again"


def wide_problem(head: bytes) -> str | None:
    """What to say when the first four bytes of a file are those of UTF-16 or UTF-32.

    Without a mark, every second byte of plain characters is zero.
    """
    if not head.startswith(_WIDE_MARKS) and [byte == 0 for byte in head] not in _WIDE_ZEROS:
        return None
    return "the file is UTF-16 or UTF-32: save it as UTF-8, as with iconv -f UTF-16 -t UTF-8"


def _rows(file: IO[bytes], path: Path) -> Iterator[RawRow]:
    head = file.read(HEAD)
    if problem := binary_problem(head) or wide_problem(head[:4]):
        yield RawRow(1, "", problem, ends=True)
        return
    file.seek(0)
    lines = _nonblank_lines(file)
    first = next(lines, None)
    if first is None:
        yield RawRow(1, "", "the file holds no rows")
        return
    second = next(lines, None)
    if problem := text_problem(path, first[1], second[1] if second else None):
        yield RawRow(first[0], first[1][:200].decode("utf-8", "replace"), problem, ends=True)
        return
    file.seek(0)
    if not _is_jsonl(first[1], second[1] if second else None):
        if _is_array(file, first, second):
            file.seek(0)
            yield from array_rows(file)
            return
        file.seek(0)
        if (whole := _single_object(file, first)) is not None:
            yield whole
            return
        file.seek(0)
    yield from _line_rows(_nonblank_lines(file))


def _nonblank_lines(file: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """(number, bytes) of each line with something on it; only a newline ends a line.

    Of a line over arrays.LONGEST_ROW, that much and one byte more.
    """
    number = 0
    while line := file.readline(arrays.LONGEST_ROW + 1):
        number += 1
        rest = line
        while len(rest) > arrays.LONGEST_ROW and not rest.endswith(b"\n"):
            rest = file.readline(arrays.LONGEST_ROW + 1)
        if number == 1:
            line = line.removeprefix(codecs.BOM_UTF8)
        if len(line) > arrays.LONGEST_ROW or (line := line.strip()):
            yield number, line


def _is_jsonl(first: bytes, second: bytes | None) -> bool:
    """Whether the first two lines settle it, so that the file need not be read whole."""
    if first.startswith(b"{"):
        return len(first) > arrays.LONGEST_ROW or any(
            isinstance(_parsed(line), dict) for line in (first, second) if line is not None
        )
    if not first.startswith(b"["):
        return True
    value = None if len(first) > arrays.LONGEST_ROW else _parsed(first)
    return value is not None and (second is not None or is_message_list(value))


def _is_array(file: IO[bytes], first: tuple[int, bytes], second: tuple[int, bytes] | None) -> bool:
    """A JSON array of rows, as opposed to JSONL whose rows are bare arrays of messages."""
    if not first[1].startswith(b"["):
        return False
    value = _parsed(first[1])
    if value is not None:
        return second is None and not is_message_list(value)
    # "[" opens an array over several lines; a lone broken row among whole ones does not.
    return second is None or _parsed(second[1]) is None or _end_of(file).endswith(b"\n]")


def _end_of(file: IO[bytes]) -> bytes:
    """The last two bytes that are not blank; a packed file must be unpacked to its end for them."""
    tail = b""
    while piece := file.read(_PIECE):
        tail += piece
        body = tail.rstrip()
        tail = body[-2:] + tail[len(body) :][-1:]
    return tail.rstrip()


def _single_object(file: IO[bytes], first: tuple[int, bytes]) -> RawRow | None:
    """The object that the file is, over several lines; None where it is something else."""
    if not first[1].startswith(b"{") or _parsed(first[1]) is not None:
        return None
    stream = JsonStream(file)
    stream.peek()
    try:
        value, text = stream.value()
    except TooLong as broken:
        return RawRow(first[0], broken.text, str(broken), ends=True)
    except Broken:
        return None
    return None if stream.peek() else element(first[0], value, text, stream.problem)


def _parsed(data: bytes) -> Any:
    if len(data) > arrays.LONGEST_ROW:
        return None
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def _line_rows(lines: Iterable[tuple[int, bytes]]) -> Iterator[RawRow]:
    decoder = Decoder()
    for number, line in lines:
        if len(line) > arrays.LONGEST_ROW:
            start = line[:200].decode("utf-8", "replace")
            yield RawRow(number, start, arrays.too_long())
            continue
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError as error:
            problem = not_utf8(line[error.start], f"at column {error.start + 1}")
            yield RawRow(number, line.decode("utf-8", "replace"), problem)
            continue
        try:
            value = decoder.decode(text)
        except json.JSONDecodeError as error:
            reason = broken_reason(error)
            yield RawRow(number, text, f"broken JSON at column {error.colno}: {reason}")
        except RecursionError:
            yield RawRow(number, text, TOO_DEEP)
        else:
            found = decoder.problem
            yield RawRow(number, value if found is None else text, found)
