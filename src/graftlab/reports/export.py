"""`runs.csv` and `runs.parquet`: one row a run, every differing key a column."""

from __future__ import annotations

import csv
import io
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from graftlab.files.writing import write_atomic
from graftlab.reports.compare import Comparison
from graftlab.reports.run import ReportedRun
from graftlab.reports.values import is_number, written

_FORMULA = re.compile(r"\s*[=+\-@]|[\t\r]")
_NUMBER = re.compile(r"[+-]?[0-9.]+(e[+-]?[0-9]+)?", re.ASCII)
CSV, PARQUET = "runs.csv", "runs.parquet"
HEAD = ("run", "folder", "state")
"""The first columns, by which a table of ours is known again."""
NUMBERS = ("score", "baseline", "best_step", "steps", "tokens", "seconds", "cost")
"""Columns of every run; losses in what `measure` says, cost in US dollars."""
RESULTS = ("tokens_per_second", "peak_rss_mb", "trainable_parameters", "precision", "measure")
RANKED = ("ranked_by", "better", "ranked")
"""What the runs are compared by, where that is not the loss."""
"""Further columns, of finished runs."""


def rows(found: Comparison) -> list[dict[str, Any]]:
    """Each run as a flat row; all rows have the same keys, in the same order."""
    return [_row(found, run) for run in found.runs]


def write_csv(found: Comparison, folder: Path) -> Path:
    """Write `runs.csv`; what a run does not have is an empty field."""
    table = rows(found)
    text = io.StringIO()
    writer = csv.DictWriter(text, [cell(name) for name in table[0]], lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        {cell(k): v if is_number(v) else cell(_plain(v)) for k, v in row.items()} for row in table
    )
    write_atomic(folder / CSV, text.getvalue())
    return folder / CSV


def write_parquet(found: Comparison, folder: Path) -> Path | None:
    """Write `runs.parquet`, typed; None where pyarrow is not installed."""
    if find_spec("pyarrow") is None:
        return None
    import pyarrow
    from pyarrow import parquet

    table = rows(found)
    columns = {name: _column([row[name] for row in table]) for name in table[0]}
    parquet.write_table(pyarrow.table(columns), folder / PARQUET)
    return folder / PARQUET


def _row(found: Comparison, run: ReportedRun) -> dict[str, Any]:
    result = run.result
    return {
        **dict(zip(HEAD, (run.name, str(run.folder), run.state), strict=True)),
        **{key: run.value(key) for key in found.keys},
        **{name: getattr(run, name) for name in NUMBERS},
        **{name: getattr(result, name) if result else None for name in RESULTS},
        **({} if found.ranking.is_loss else {n: getattr(result, n, None) for n in RANKED}),
        "reason": run.reason,
    }


def cell(text: str) -> str:
    """A text as a cell: a spreadsheet runs what begins with one of these signs as a formula."""
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def _plain(value: Any) -> str:
    if isinstance(value, str):
        return value
    return "" if value is None else written(value)


def _column(values: list[Any]) -> list[Any]:
    """Values of one kind: numbers and booleans as they are, anything mixed as text."""
    present = [value for value in values if value is not None]
    if all(isinstance(value, bool) for value in present) or all(map(is_number, present)):
        return [
            float(v) if any(isinstance(p, float) for p in present) and v is not None else v
            for v in values
        ]
    return [value if value is None else written(value) for value in values]
