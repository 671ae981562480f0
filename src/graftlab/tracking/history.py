"""The run's own memory: `train_log.csv`, one row per logged step, cut back when resuming.

    train_log.csv         appended row by row
    train_log.csv.xxh3    the checksum of its beginning, as far as the last checkpoint

Every checkpoint holds the log until its step: a resumed run takes it from there.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from math import isfinite
from pathlib import Path

from graftlab.files.checksums import beside, write_beginning
from graftlab.files.writing import write_atomic, write_json

COLUMNS = (
    "step",
    "epoch",
    "loss",
    "valid_loss",
    "learning_rate",
    "grad_norm",
    "tokens",
    "trained_tokens",
    "seconds",
    "tokens_per_second",
    "trained_tokens_per_second",
    "share_of_peak",
)
"""Step 0 holds the base's validation loss; `tokens` and `seconds` count from the start."""

PREFIX = "valid/"
"""Of columns that an objective's validation adds besides `valid_loss`."""

TIMES = frozenset(
    {"seconds", "tokens_per_second", "trained_tokens_per_second", "share_of_peak", "share"}
)
"""Columns that differ between two runs of the same configuration. `share` is there where several
runs trained in one step: the part of its time that is counted as this run's."""

Row = dict[str, float]


class History:
    """Rows by step, in memory and on disk. Metrics an objective adds get columns of their own."""

    def __init__(self, path: Path) -> None:
        """`path` is the CSV file; existing rows are read, as a resumed run needs them."""
        self.path = path
        self.columns: tuple[str, ...] = COLUMNS
        self.rows: list[Row] = []
        if path.exists():
            text = path.read_text(encoding="utf-8", errors="replace")
            self.restore(text[: text.rfind("\n") + 1])  # a crash may leave half a line, or number

    def restore(self, text: str) -> None:
        """Take the rows of a log's text instead of what is here; the file is not touched."""
        reader = csv.DictReader(io.StringIO(text))
        self.columns = _with(COLUMNS, reader.fieldnames or ())
        self.rows = []
        with suppress(csv.Error):  # of a damaged file: what was read until there
            self.rows += [row for raw in reader if (row := _row(raw)) is not None]

    def cut_back(self, step: int) -> None:
        """Forget everything after `step`: the resumed run will write it again."""
        self.rows = [row for row in self.rows if row["step"] <= step]
        self._rewrite()

    def text(self) -> str:
        """The content of the file, as it should be."""
        return self._csv(self.rows, head=True)

    def _rewrite(self) -> None:
        beside(self.path).unlink(missing_ok=True)  # before the file that it is not of any more
        write_atomic(self.path, self.text())

    def add(self, row: Row) -> None:
        """Append one row; a metric seen for the first time gets a column, once."""
        self.rows.append(row)
        if not row.keys() <= set(self.columns):
            self.columns = _with(self.columns, row)
            self._rewrite()
            return
        with self.path.open("a", encoding="utf-8", newline="") as file:
            file.write(self._csv([row]))

    def _csv(self, rows: Sequence[Row], *, head: bool = False) -> str:
        text = io.StringIO()
        writer = csv.DictWriter(text, self.columns, lineterminator="\n")
        if head:
            writer.writeheader()
        writer.writerows(rows)
        return text.getvalue()

    def sync(self) -> None:
        """Make what was added durable; called before a checkpoint that relies on it."""
        with self.path.open("rb") as file:
            os.fsync(file.fileno())
        write_beginning(self.path)

    def write_json(self) -> None:
        """The same rows as `train_log.json`, for tools that prefer it."""
        finite = [{k: v if isfinite(v) else None for k, v in row.items()} for row in self.rows]
        write_json(self.path.with_suffix(".json"), finite)


def _with(columns: tuple[str, ...], more: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys([*columns, *more]))


def _row(raw: dict[str, str]) -> Row | None:
    """The numbers of a line, or None where a crash of the machine has left something else."""
    if None in raw.values() or None in raw or not raw.get("step"):
        return None
    try:
        return {k: _number(k, v) for k, v in raw.items() if v != ""}
    except ValueError:
        return None


def _number(column: str, text: str) -> float:
    return int(text) if column in ("step", "tokens", "trained_tokens") else float(text)
