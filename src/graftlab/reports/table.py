"""The report in the terminal: the best runs as a table, and the verdict below."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING

from graftlab.reports.compare import Comparison, failures
from graftlab.reports.run import ReportedRun
from graftlab.reports.verdict import Contrast

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

STANDING = ("configuration", "seeds", "mean", "± 95 %", "behind the best", "")
WHOLE = ("score", "mean", "± 95 %", "best step", "behind the best")
"""Columns that are never cut."""
HEADS = ("score", "best step", "tokens", "seconds", "cost", "state")


def show(found: Comparison, console: Console, *, limit: int) -> None:
    """Print up to `limit` runs, best first, and points; then failures and the verdict."""

    ordered = best_first(found)
    bases = {run.baseline for run in found.runs if run.counts}
    alone = f", base alone {loss(bases.pop())}" if len(bases) == 1 else ""
    heads = ["run", *(found.names[key] for key in found.keys), *HEADS]
    rows = [
        [run.name, *(found.shown(run, key) for key in found.keys), *_numbers(run), run.state]
        for run in ordered[:limit]
    ]
    many = "1 run" if len(found.runs) == 1 else f"{len(found.runs)} runs, best first"
    title = f"{many}{alone}"
    console.print(_table(title, heads, rows, left=("run", "state")))
    if len(ordered) > limit:
        console.print(f"... and {len(ordered) - limit} more: limit=N shows them.", highlight=False)
    if found.replicated:
        title = "configurations, their seeds together"
        rows = list(standings(found))[:limit]
        console.print(_table(title, STANDING, rows, left=(STANDING[0], STANDING[-1])))
    for run in failures(found.runs)[:limit]:
        console.print(f"{run.name} {run.state}: {run.reason}", highlight=False)
    console.print(found.sentence(), highlight=False)


def standings(found: Comparison) -> Iterator[list[str]]:
    """Each point against the best, under the heads of STANDING."""
    judged = found.verdict
    for place, point in enumerate(found.points):
        mean = point.interval
        name = found.label(point.runs[0], seed=False) or "all runs"
        row = [name, count(mean.n), loss(mean.mean), loss(mean.half)]
        if judged is None:
            yield [*row, "", ""]
        elif place == judged.best:
            yield [*row, "", "winner" if judged.wins else "lowest mean"]
        else:
            yield [*row, *_behind(judged.rivals[place])]


def _behind(rival: Contrast) -> tuple[str, str]:
    half = rival.difference.half
    behind = f"{rival.difference.mean:+.4f}" + ("" if half is None else f" ± {half:.4f}")
    if rival.better:
        return behind, f"worse ({rival.method})"
    seeds = f", {rival.seeds} seeds would settle it" if rival.seeds else ""
    return behind, f"not distinguishable{seeds}"


def _table(
    title: str, heads: Sequence[str], rows: Sequence[Sequence[str]], *, left: Collection[str]
) -> Table:
    from rich import box
    from rich.table import Table

    made = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for head in heads:
        # What is compared stays whole; where room is short, names and values are folded.
        made.add_column(
            head,
            justify="left" if head in left else "right",
            no_wrap=head in WHOLE,
            overflow="fold",
        )
    for row in rows:
        made.add_row(*row)
    return made


def best_first(found: Comparison) -> list[ReportedRun]:
    """Runs that may be compared by their score, then the others by state and name."""
    return sorted(
        found.runs,
        key=lambda run: (not run.counts, run.state if not run.counts else "", run.score or 0.0),
    )


def _numbers(run: ReportedRun) -> list[str]:
    return [
        loss(run.score),
        count(run.best_step),
        short(run.tokens),
        seconds(run.seconds),
        money(run.cost),
    ]


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
