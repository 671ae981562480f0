"""The report in the terminal: the best runs as a table, and the verdict below."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graftlab.reports.compare import Comparison, failures
from graftlab.reports.run import Run

if TYPE_CHECKING:
    from rich.console import Console

HEADS = ("score", "best step", "tokens", "seconds", "cost", "state")


def show(found: Comparison, console: Console, *, limit: int) -> None:
    """Print up to `limit` runs, best first, then the verdict and what did not come to its end."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    ordered = best_first(found)
    bases = {run.baseline for run in found.runs if run.counts}
    alone = f", base alone {loss(bases.pop())}" if len(bases) == 1 else ""
    table = Table(
        title=f"{len(found.runs)} runs, best first{alone}",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    table.add_column("run", no_wrap=True)
    for key in found.keys:
        table.add_column(escape(found.names[key]), justify="right")
    for head in HEADS:
        table.add_column(head, justify="left" if head == "state" else "right")
    for run in ordered[:limit]:
        values = [found.shown(run, key) for key in found.keys]
        table.add_row(*map(escape, [run.name, *values, *_numbers(run), run.state]))
    console.print(table)
    if len(ordered) > limit:
        console.print(f"... and {len(ordered) - limit} more: limit=N shows them.", highlight=False)
    for run in failures(found.runs)[:limit]:
        console.print(escape(f"{run.name} {run.state}: {run.reason}"), highlight=False)
    console.print(escape(found.sentence()), highlight=False)


def best_first(found: Comparison) -> list[Run]:
    """Runs that may be compared by their score, then the others by state and name."""
    return sorted(
        found.runs,
        key=lambda run: (not run.counts, run.state if not run.counts else "", run.score or 0.0),
    )


def _numbers(run: Run) -> list[str]:
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
