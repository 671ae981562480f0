"""The evaluation on the terminal: means with intervals, then who is better than whom."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graftlab.errors import counted
from graftlab.evaluation.wording import bounds, how_many, label, number, words
from graftlab.terminal import printable

if TYPE_CHECKING:
    from rich.console import Console

    from graftlab.evaluation.results import Results


def show(found: Results, console: Console) -> None:
    """Write both tables."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    def text(said: str, style: str = "") -> Text:
        return Text(printable(said), style=style)

    table = Table(box=box.SIMPLE, title="mean [95 % interval]; ↑ more, ↓ less is better")
    table.add_column("measure")
    for model in found.replies:
        table.add_column(text(model), justify="right")
    losses = {model: told.get("valid_loss") for model, told in found.models.items()}
    if any(loss is not None for loss in losses.values()):
        known = ["–" if losses[m] is None else f"{losses[m]:.4f}" for m in found.replies]
        table.add_row("validation loss ↓", *known)
    for name, measure in found.measures.items():
        cells = []
        for model in found.replies:
            mean = found.means.get((model, name))
            cells.append(
                text(f"{number(mean.mean, measure)} {bounds(mean, measure)}" if mean else "–")
            )
        table.add_row(label(*name, measure), *cells)
    console.print(table)
    if found.early is not None:
        console.print(f"Asked: {how_many(found)}.")
    for one in found.preferences:
        for note in one.notes():
            console.print(text(note))
    judged = {key: verdict for key, verdict in found.verdicts.items() if verdict.word}
    apart = {key: verdict for key, verdict in judged.items() if verdict.contrast.moved}
    if same := len(judged) - len(apart):
        console.print(f"{counted(same, 'comparison')} the same on every prompt.")
    if not apart:
        return
    table = Table(box=box.SIMPLE, title="difference on the same prompts [95 % interval]")
    for head in ("model", "against", "measure", "difference", "verdict"):
        table.add_column(head, overflow="fold")
    for (first, second, name), verdict in apart.items():
        measure, difference = found.measure(name), verdict.contrast.difference
        told = number(difference.mean, measure, signed=True)
        table.add_row(
            text(second),
            text(first),
            label(*name, measure),
            f"{told} {bounds(difference, measure, signed=True)}",
            text(words(verdict), {"better": "green", "worse": "red"}.get(verdict.word, "dim")),
        )
    console.print(table)
