"""The report in the terminal: the best runs as a table, and the verdict below.

A table holds the columns that fit: a run's results, then the keys that matter most. The others are
named in one line, and stand in the files.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from graftlab.reports.compare import Comparison, failures
from graftlab.reports.run import ReportedRun
from graftlab.reports.verdict import Contrast
from graftlab.tracking.ranking import MORE

if TYPE_CHECKING:
    from rich.console import Console

STANDING = ("configuration", "seeds", "mean", "± 95 %", "behind the best", "verdict")
KEYS_FIRST = 3
"""Keys that are given room before tokens and cost."""
NAME, VALUE = 20, 32
"""Longer names of runs are cut where they stay distinct, longer values folded."""
GAP = 2
"""Characters between two columns."""


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """Cells under a head, to the right or, as `text`, to the left and folded between words."""

    head: str
    cells: Sequence[str]
    text: bool = False

    @property
    def width(self) -> int:
        """Characters that it needs to be read."""
        parts = " ".join(self.cells).split() if self.text else self.cells
        return max(len(self.head), min(VALUE, max(map(len, parts), default=0)))


def show(found: Comparison, console: Console, *, limit: int, ranked: Sequence[str] = ()) -> None:
    """Print up to `limit` runs, best first, and points; then failures and the verdict.

    `ranked` are keys, the one that matters most first.
    """
    ordered = best_first(found)
    bases = {run.baseline for run in found.runs if run.counts}
    alone = f", base alone {loss(bases.pop())}" if len(bases) == 1 else ""
    many = "1 run" if len(found.runs) == 1 else f"{len(found.runs)} runs, best first"
    _print_runs(f"{many}{alone}", found, ordered[:limit], ranked, console)
    if len(ordered) > limit:
        console.print(f"... and {len(ordered) - limit} more: limit=N shows them.", highlight=False)
    if found.replicated:
        _print_standings("configurations, their seeds together", found, limit, console)
    for run in failures(found.runs)[:limit]:
        console.print(f"{run.name} {run.state}: {run.reason}", highlight=False)
    console.print(found.sentence(), highlight=False)


def _print_runs(
    title: str,
    found: Comparison,
    runs: Sequence[ReportedRun],
    ranked: Sequence[str],
    console: Console,
) -> None:
    name = Column("run", distinct([run.name for run in runs]), text=True)
    keys = {
        key: Column(found.names[key], [found.shown(run, key) for run in runs]) for key in found.keys
    }
    score = Column("score", [loss(run.shown) for run in runs])
    losses = Column("validation loss", [loss(run.loss) for run in runs])
    beside = [] if found.ranking.is_loss else [losses]
    step = Column("best step", [count(run.best_step) for run in runs])
    tokens = Column("tokens", [short(run.tokens) for run in runs])
    time = Column("seconds", [seconds(run.seconds) for run in runs])
    cost = Column("cost", [money(run.cost) for run in runs])
    state = Column("state", [run.state for run in runs], text=True)
    by_rank = [keys[key] for key in dict.fromkeys((*ranked, *found.keys))]
    first, rest = by_rank[:KEYS_FIRST], by_rank[KEYS_FIRST:]
    _print(
        title,
        [name, *keys.values(), score, *beside, step, tokens, time, cost, state],
        wanted=[name, score, *beside, state, step, time, *first, tokens, cost, *rest],
        console=console,
    )


def _print_standings(title: str, found: Comparison, limit: int, console: Console) -> None:
    rows = list(standings(found))[:limit]
    name, seeds, mean, half, behind, verdict = (
        Column(head, cells, text=head in (STANDING[0], STANDING[-1]))
        for head, *cells in zip(STANDING, *rows, strict=True)
    )
    columns = [name, seeds, mean, half, behind, verdict]
    _print(title, columns, wanted=[name, mean, verdict, half, seeds, behind], console=console)


def _print(
    title: str, columns: Sequence[Column], *, wanted: Sequence[Column], console: Console
) -> None:
    """A table of those columns that fit, and a line that names the others."""
    from rich import box
    from rich.table import Table

    kept = fitting(wanted, console.width)
    made = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    shown = [column for column in columns if column in kept]
    for column in shown:
        made.add_column(
            column.head,
            justify="left" if column.text else "right",
            no_wrap=not column.text and column.width < VALUE,
            max_width=None if column.text else column.width,
            overflow="fold",
        )
    for row in zip(*(column.cells for column in shown), strict=True):
        made.add_row(*row)
    console.print(made)
    if missing := [column.head for column in columns if column not in kept]:
        told = f"Too wide for this terminal, but in the files: {', '.join(missing)}."
        console.print(told, highlight=False)


def fitting(wanted: Sequence[Column], width: int) -> set[Column]:
    """Columns that have room side by side in `width` characters; each is asked in turn.

    The first always has.
    """
    kept: set[Column] = set()
    room = width - GAP
    for column in wanted:
        if not kept or column.width + GAP <= room:
            kept.add(column)
            room -= column.width + GAP
    return kept


def distinct(names: Sequence[str]) -> list[str]:
    """Names cut to NAME characters, or whole where two would become the same."""
    cut = [name if len(name) <= NAME else f"{name[: NAME - 1]}…" for name in names]
    return cut if len(set(cut)) == len(set(names)) else list(names)


def standings(found: Comparison) -> Iterator[list[str]]:
    """Each point against the best, under the heads of STANDING."""
    judged = found.verdict
    lowest = "highest mean" if found.ranking.better == MORE else "lowest mean"
    for place, point in enumerate(found.points):
        mean = point.interval
        name = found.label(point.runs[0], seed=False) or "all runs"
        row = [name, count(mean.n), loss(found.ranking.key(mean.mean)), loss(mean.half)]
        if judged is None:
            yield [*row, "", ""]
        elif place == judged.best:
            yield [*row, "", "winner" if judged.wins else lowest]
        else:
            yield [*row, *_behind(judged.rivals[place])]


def _behind(rival: Contrast) -> tuple[str, str]:
    half = rival.difference.half
    behind = f"{rival.difference.mean:+.4f}" + ("" if half is None else f" ± {half:.4f}")
    if rival.better:
        return behind, f"worse ({rival.method})"
    seeds = f", {rival.seeds} seeds would settle it" if rival.seeds else ""
    return behind, f"not distinguishable{seeds}"


def best_first(found: Comparison) -> list[ReportedRun]:
    """Runs that may be compared by their score, then the others by state and name."""
    return sorted(
        found.runs,
        key=lambda run: (not run.counts, run.state if not run.counts else "", run.score or 0.0),
    )


def loss(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def count(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"


def short(value: float | None) -> str:
    """A count in thousands or millions, to three digits."""
    if value is None or value < 10_000:
        return count(value)
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{letter}"
    raise AssertionError("unreachable: ten thousand is more than a thousand")


def seconds(value: float | None) -> str:
    return "–" if value is None else f"{value:,.1f}" if value < 100 else f"{value:,.0f}"


def money(value: float | None) -> str:
    """US dollars, small sums with two digits that count."""
    if value is None:
        return "–"
    return f"${value:,.2f}" if value >= 0.1 or value == 0 else f"${value:.2g}"
