"""What `prepare` says at its end: a table of what became of the rows, and where they lie."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from graftlab.console import console, say
from graftlab.errors import counted

if TYPE_CHECKING:
    from rich.table import Table

    from graftlab.recipes.pipeline import StepCounts
    from graftlab.recipes.prepare import Prepared


def briefly(made: Prepared) -> None:
    """Print counts per step and side, and where the report lies: on the way to something else."""
    console().print(_table(made.tallies))
    _say_repeats(made.tallies)
    sides = [f"{side} {counted(counts.total(), 'row')}" for side, counts in made.rows.items()]
    say(f"{', '.join(sides)}; to be looked at: {made.folder / 'report.html'}")


def summary(made: Prepared) -> None:
    """Print counts per step, reasons, and where everything lies."""
    console().print(_table(made.tallies))
    for side, counts in made.rows.items():
        parts = ", ".join(f"{name} {count:,}" for name, count in counts.items())
        note = f" ({parts})" if len(counts) > 1 else ""
        say(f"{made.folder / f'{side}.jsonl'}: {counted(counts.total(), 'row')}{note}")
    _say_repeats(made.tallies)
    rejects = sum(tally.dropped for tally in made.tallies)
    say(f"{made.folder / 'rejects.jsonl'}: {rejects:,} dropped rows, each with its reason")
    say(f"{made.folder / 'manifest.json'}: inputs, parameters and counts")
    say(f"{made.folder / 'report.html'}: counts, lengths, oddities and examples, to be read first")
    say(f"Train on it: python train.py data=prepared data.path={made.folder}")


def _say_repeats(tallies: Sequence[StepCounts]) -> None:
    """Rows that the mix takes often; the mix is the last step."""
    mix = tallies[-1]
    for line in mix.parameters.repeats(mix.taken, mix.given):
        say(line)


def _table(tallies: Sequence[StepCounts]) -> Table:
    from rich.table import Table

    table = Table("step", box=None, pad_edge=False)
    for name in ("in", "kept", "dropped", "out"):
        table.add_column(name, justify="right")
    table.add_column("why")
    for tally in tallies:
        counts = (tally.taken.total(), tally.kept, tally.dropped, tally.given.total())
        why = [_listed(tally.reasons)] if tally.reasons else []
        why += [f"of their text: {_listed(tally.parts)}"] if tally.parts else []
        names = ", ".join(sorted(tally.metadata))
        why += [f"metadata left behind: {names}"] if names else []
        table.add_row(tally.step, *(f"{count:,}" for count in counts), "\n".join(why))
    return table


def _listed(reasons: Counter[str]) -> str:
    return ", ".join(f"{reason} {count:,}" for reason, count in reasons.most_common())
