"""Data files as rows: JSONL or a JSON array, told apart by content, never by name.

bytes ──▶ UTF-8 (BOM dropped) ──▶ JSONL        one row per line; a broken line is one problem
                             └──▶ JSON array   one row per element, with the element's line
                             └──▶ one object   pretty-printed: a single row
"""

from __future__ import annotations

import codecs
import glob
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graftlab.errors import ConfigError, did_you_mean

_WIDE_MARKS = (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_BLANK = re.compile(r"\s*")
_DECODER = json.JSONDecoder()


@dataclass(frozen=True, slots=True)
class RawRow:
    """One row as it stands in the file; `problem` says why it could not be parsed.

    `value` is the parsed JSON, or the raw text where there is a problem.
    """

    line: int
    value: Any
    problem: str | None = None


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
    listed = ", ".join(data[:6]) if data else "no JSON files"
    return f": in {folder.resolve()} there is {listed}."


def read_rows(path: Path) -> Iterator[RawRow]:
    """Rows of one file, in order; blank lines are passed over.

    What cannot be parsed is yielded as a row with a `problem`, so that nothing disappears unseen.
    """
    data = path.read_bytes()
    if data.startswith(_WIDE_MARKS):
        yield RawRow(1, "", "the file is UTF-16 or UTF-32: save it as UTF-8")
        return
    data = data.removeprefix(codecs.BOM_UTF8)
    lines = _nonblank_lines(data)
    first = next(lines, None)
    if first is None:
        yield RawRow(1, "", "the file holds no rows")
        return
    second = next(lines, None)
    if _is_array(data, first, second):
        yield from _array_rows(data)
    elif (whole := _single_object(data, first)) is not None:
        yield whole
    else:
        yield from _line_rows(data)


def _nonblank_lines(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(number, bytes) of each line with something on it; only a newline ends a line."""
    start, number = 0, 0
    while start < len(data):
        end = data.find(b"\n", start)
        end = len(data) if end < 0 else end
        number += 1
        if line := data[start:end].strip():
            yield number, line
        start = end + 1


def _is_array(data: bytes, first: tuple[int, bytes], second: tuple[int, bytes] | None) -> bool:
    """A JSON array of rows, as opposed to JSONL whose rows are bare arrays of messages."""
    if not first[1].startswith(b"["):
        return False
    value = _parsed(first[1])
    if value is not None:
        return second is None and not is_message_list(value)
    # "[" opens an array over several lines; a lone broken row among whole ones does not.
    return second is None or _parsed(second[1]) is None or data.rstrip().endswith(b"\n]")


def _single_object(data: bytes, first: tuple[int, bytes]) -> RawRow | None:
    if not first[1].startswith(b"{") or _parsed(first[1]) is not None:
        return None
    value = _parsed(data)
    return None if value is None else RawRow(first[0], value)


def _parsed(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def is_message_list(value: Any) -> bool:
    """Whether `value` looks like one conversation: a list of objects that carry a role."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(item, dict) and ("role" in item or "from" in item) for item in value)
    )


def _line_rows(data: bytes) -> Iterator[RawRow]:
    for number, line in _nonblank_lines(data):
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError as error:
            yield RawRow(number, line.decode("utf-8", "replace"), _not_utf8(line, error))
            continue
        try:
            yield RawRow(number, json.loads(text))
        except json.JSONDecodeError as error:
            yield RawRow(number, text, f"broken JSON at column {error.colno}: {error.msg}")
        except RecursionError:
            yield RawRow(number, text, "broken JSON: nested too deeply")


def _not_utf8(line: bytes, error: UnicodeDecodeError) -> str:
    byte = line[error.start]
    return (
        f"not UTF-8 (byte 0x{byte:02X} at column {error.start + 1}): convert the file, "
        "for instance with iconv -f LATIN1 -t UTF-8"
    )


def _array_rows(data: bytes) -> Iterator[RawRow]:
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        yield RawRow(line, "", f"{_not_utf8(data, error)}; no row of this array was read")
        return
    elements = list(_elements(text))
    if is_message_list([row.value for row in elements if row.problem is None]):
        # The array is itself one conversation, printed over several lines.
        broken = [row for row in elements if row.problem]
        yield broken[0] if broken else RawRow(1, [row.value for row in elements])
        return
    yield from elements or [RawRow(1, "", "the file holds no rows")]


def _elements(text: str) -> Iterator[RawRow]:
    """The elements of the array that `text` is, each with the line it starts on."""
    at, line, counted = text.index("[") + 1, 1, 0
    while True:
        at = _skip_blank(text, at)
        line, counted = line + text.count("\n", counted, at), at
        if text[at : at + 1] == "]":
            return
        try:
            value, at = _DECODER.raw_decode(text, at)
        except (json.JSONDecodeError, RecursionError) as error:
            place = getattr(error, "pos", at)
            line += text.count("\n", counted, place)
            reason = getattr(error, "msg", "nested too deeply")
            yield RawRow(line, text[at : at + 200], f"broken JSON: {reason}; the rest is unread")
            return
        yield RawRow(line, value)
        at = _skip_blank(text, at)
        if text[at : at + 1] == ",":
            at += 1
        elif text[at : at + 1] != "]":
            line += text.count("\n", counted, at)
            rest = text[at : at + 200]
            yield RawRow(line, rest, "broken JSON: expected ',' or ']'; the rest is unread")
            return


def _skip_blank(text: str, at: int) -> int:
    match = _BLANK.match(text, at)
    assert match is not None
    return match.end()
