"""Where records come from: files of every kind the recipes take, or sets made here.

JSONL, JSON array   streamed, by data/files.py       file:line
CSV, TSV            streamed, header first           file:line where the row starts
Parquet             batch by batch (extra)           file:row
.txt, or a folder   one text per file                file:1

Rows that cannot become records are dropped with a reason; a file that cannot be read to its end is
an error, because nobody could say how many rows are missing.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from graftlab.data.arrays import LONGEST_ROW, RawRow, not_utf8, too_long
from graftlab.data.files import damaged, locate, open_data, read_rows, wide_problem
from graftlab.data.problems import RowProblem
from graftlab.errors import ConfigError, DataError, Problem, did_you_mean, require_choice
from graftlab.recipes.record import Drop, Record
from graftlab.recipes.rows import record_of

FORMATS = ("auto", "json", "csv", "parquet", "text")
_BY_ENDING = {".csv": "csv", ".tsv": "csv", ".parquet": "parquet", ".txt": "text", ".md": "text"}
_SHOWN = 20


@dataclass(kw_only=True, slots=True)
class SourceSpec:
    """One source of a recipe: `sources.NAME.files=...`."""

    files: Any = None
    """A file, a list, a glob, or a folder of .txt (one text each); gzip is unpacked."""
    format: str = "auto"
    """auto (by ending, else JSON by content), json (lines or an array), csv, parquet or text."""
    columns: dict[str, str] = field(default_factory=dict)
    """Field -> the file's name for it, such as {user: question, assistant: reply}."""
    ignore_keys: list[str] = field(default_factory=list)
    """Keys of rows and turns to pass over, as if they were not there; any other must be known."""
    make: str | None = None
    """A set that is made instead of read, such as guard; in place of files."""
    steps: list[str] = field(default_factory=list)
    """Steps applied to this source alone, in order, such as [curate, persona, guards]."""

    def __post_init__(self) -> None:
        require_choice("sources.NAME.format", self.format, FORMATS)

    def check(self, name: str) -> None:
        """Raise ConfigError unless the source names files that are there, or a set to make."""
        if self.make is not None and self.files:
            raise ConfigError(f"sources.{name}: give files or make, not both.")
        if self.make is None and not self.files:
            raise ConfigError(
                f"sources.{name}.files is not set: give sources.{name}.files=FILE "
                "(or corpus=FILE, where the recipe takes it from there)."
            )
        if self.make is None:
            self.paths(name)

    def paths(self, name: str) -> list[Path]:
        """The files of the source, without repeats; a folder stands for its texts."""
        return find_files(f"sources.{name}.files", self.files)


def find_files(key: str, patterns: Any) -> list[Path]:
    """As `data.files.locate`, but a folder stands for the .txt files in it.

    Raises ConfigError naming `key`.
    """
    given = patterns if isinstance(patterns, list | tuple) else [patterns]
    found: dict[Path, None] = {}
    for pattern in given:
        folder = Path(pattern).expanduser() if isinstance(pattern, str | Path) else None
        if folder is None or not folder.is_dir():
            found |= dict.fromkeys(locate(key, pattern))
            continue
        texts = sorted(path for path in folder.rglob("*.txt*") if _ending(path) == ".txt")
        if not texts:
            raise ConfigError(
                f"{key}={pattern} is a folder without .txt files; name others by a glob: "
                f"{key}='{pattern}/*.jsonl'"
            )
        found |= dict.fromkeys(texts)
    return list(found)


def fingerprint(path: Path) -> dict[str, Any]:
    """What the manifest says of a file's content: bytes and SHA-256."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"bytes": path.stat().st_size, "sha256": digest}


def read_source(
    name: str, spec: SourceSpec, drop: Drop, *, metadata: set[str] | None = None
) -> Iterator[Record]:
    """The records of a source that is read, in file order; `metadata` takes the keys left behind.

    Raises DataError when a file cannot be read to its end, or no row of the source can be used.
    """
    problems: list[Problem] = []
    kept = dropped = 0
    for path in spec.paths(name):
        for origin, row in _rows_with_origins(path, spec):
            reason, detail = "cannot be parsed", row.problem
            if detail is None:
                try:
                    record = record_of(
                        row.value,
                        origin=origin,
                        columns=spec.columns,
                        ignore=spec.ignore_keys,
                        metadata=metadata,
                    )
                except RowProblem as problem:
                    reason, detail = "cannot be used", str(problem)
                else:
                    kept += 1
                    yield replace(record, source=name)
                    continue
            dropped += 1
            problems += [Problem(origin, detail)] if len(problems) < _SHOWN else []
            drop(Record("unread", {"row": row.value}, origin, name), reason, detail)
    if not kept:
        first = f" (the first {_SHOWN})" if dropped > _SHOWN else ""
        raise DataError(f"sources.{name}: none of its {dropped} rows can be used{first}:", problems)


def _rows_with_origins(path: Path, spec: SourceSpec) -> Iterator[tuple[str, RawRow]]:
    """The rows of a file, each with `file:line`; those that share a line are numbered."""
    last, same = 0, 1
    for row in read_file(path, spec.format, spec.columns):
        same = same + 1 if row.line == last else 1
        last = row.line
        origin = f"{path}:{row.line}" + (f"#{same}" if same > 1 else "")
        if row.ends:
            problem = Problem(origin, str(row.problem))
            raise DataError(f"{path} cannot be read to its end:", [problem])
        yield origin, row


def read_file(path: Path, format: str = "auto", columns: dict[str, str] | None = None) -> Rows:
    """The rows of a file of any format; `columns` are looked for in a header, if there is one."""
    if format == "auto":
        format = _BY_ENDING.get(_ending(path), "json")
    if format == "csv":
        return _csv_rows(path, columns or {})
    readers: dict[str, Callable[[Path], Rows]]
    readers = {"json": read_rows, "parquet": _parquet_rows, "text": _text_rows}
    return readers[format](path)


Rows = Iterator[RawRow]


def _ending(path: Path) -> str:
    """`.txt` of both a.txt and a.txt.gz."""
    name = path.name.lower().removesuffix(".gz")
    return Path(name).suffix


def _text_rows(path: Path) -> Rows:
    try:
        with open_data(path) as file:
            data = file.read()
    except (EOFError, OSError) as error:
        yield RawRow(1, "", damaged(error), ends=True)
        return
    if problem := wide_problem(data[:4]):
        yield RawRow(1, "", problem, ends=True)
        return
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        problem = not_utf8(data[error.start], f"on line {line}")
        yield RawRow(line, data.decode("utf-8", "replace")[:200], problem)
        return
    yield RawRow(1, {"text": text.replace("\r\n", "\n")})


def _csv_rows(path: Path, columns: dict[str, str]) -> Rows:
    """Rows as dictionaries; the delimiter is a tab where the header has one and no comma."""
    csv.field_size_limit(LONGEST_ROW)
    with open_data(path) as data:
        if problem := wide_problem(data.read(4)):
            yield RawRow(1, "", problem, ends=True)
            return
        data.seek(0)
        text = io.TextIOWrapper(data, "utf-8-sig", errors="surrogateescape", newline="")
        first = text.readline()
        text.seek(0)
        tabs = "\t" in first and "," not in first
        reader = csv.reader(text, delimiter="\t" if tabs else ",")
        header = next(reader, None)
        if header is None:
            yield RawRow(1, "", "the file holds no rows")
            return
        _check_header(path, header, columns)
        line = reader.line_num
        try:
            for cells in reader:
                start, line = line + 1, reader.line_num
                if cells:
                    yield _csv_row(start, header, cells)
        except (csv.Error, EOFError, OSError) as error:
            problem = _csv_problem(error) if isinstance(error, csv.Error) else damaged(error)
            yield RawRow(line + 1, "", problem, ends=True)


def _csv_problem(error: csv.Error) -> str:
    return too_long() if "field limit" in str(error) else f"broken CSV: {error}"


def _check_header(path: Path, header: list[str], columns: dict[str, str]) -> None:
    missing = [column for column in columns.values() if column not in header]
    if missing:
        raise DataError(
            f"{path}:1: no column {', '.join(f'`{name}`' for name in missing)}; there is "
            f"{', '.join(header)}.{did_you_mean(missing[0], header)} The source's `columns` say "
            "which column is which field."
        )


def _csv_row(line: int, header: list[str], cells: list[str]) -> RawRow:
    if len(cells) != len(header):
        return RawRow(line, cells, f"{len(cells)} cells under a header of {len(header)}")
    row = dict(zip(header, cells, strict=True))
    if any("\udc80" <= char <= "\udcff" for cell in cells if not cell.isascii() for char in cell):
        return RawRow(line, row, "not UTF-8: convert the file, as with iconv -f LATIN1 -t UTF-8")
    return RawRow(line, row)


def _parquet_rows(path: Path) -> Rows:
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise ConfigError(
            f"{path}: reading Parquet needs pyarrow: pip install 'graftlab[parquet]'"
        ) from error
    number = 0
    try:
        for batch in ParquetFile(path).iter_batches(batch_size=1024):
            for row in batch.to_pylist():
                number += 1
                yield RawRow(number, {name: _unfilled(value) for name, value in row.items()})
    except (ArrowException, OSError) as error:
        yield RawRow(number + 1, "", f"the Parquet file is damaged ({error})", ends=True)


def _unfilled(value: Any) -> Any:
    """A value of Parquet without the keys that only other rows have, which are null there.

    So the arguments of a tool call are those that were given.
    """
    if isinstance(value, dict):
        return {key: _unfilled(inner) for key, inner in value.items() if inner is not None}
    return [_unfilled(inner) for inner in value] if isinstance(value, list) else value
