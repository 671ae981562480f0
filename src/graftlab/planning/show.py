"""A plan on the terminal: a memory bar, a table of machines, changes and advice."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from graftlab.console import new_table
from graftlab.errors import counted
from graftlab.machine import GIB
from graftlab.planning.memory import Memory
from graftlab.planning.plan import Plan
from graftlab.planning.timing import Bill

BAR = 60
REFERENCE_BYTES = 4
"""Of a log-probability that is kept, one for each segment of a document."""
TERMS = {
    "base": ("B", "blue", "frozen weights"),
    "adapter": ("a", "cyan", "trained weights"),
    "gradients": ("g", "green", "of the trained weights"),
    "optimizer": ("o", "yellow", "its state"),
    "activations": ("A", "red", "kept for the backward pass"),
    "logits": ("L", "magenta", "one chunk, at labels only"),
    "working": ("w", "white", "temporaries of the backward pass"),
    "overhead": ("·", "bright_black", "the process itself, and what allocation loses"),
    "teacher": ("T", "bright_blue", "frozen weights of the model learnt from"),
}
"""Term of the memory -> its letter in the bar, its colour, and what it is."""


def show(plan: Plan, console: Console) -> None:
    """Print the plan."""
    for note in plan.notes:
        console.print(note, style="dim", markup=False, highlight=False)
    console.print(_facts(plan), highlight=False)
    console.print(_memory_title(plan), highlight=False)
    console.print(bar(plan.memory, plan.machine.bytes))
    console.print(_terms(plan), highlight=False)
    if plan.changes:
        console.print(_changes(plan), highlight=False)
        console.print(_elsewhere(plan), highlight=False)
    console.print(_devices(plan), highlight=False)
    for advice in plan.advice:
        mark = "!" if advice.heed else " "
        console.print(
            Text.assemble((f"{mark} {advice.about}: ", "bold"), advice.text), highlight=False
        )
    for line in plan.broken:
        console.print(Text(f"! {line}: training would not start.", "bold red"), highlight=False)


def show_total(plans: Sequence[Plan], console: Console) -> None:
    """Print what the jobs of a sweep take together."""
    headings = ("", "steps", "memory", "time", "kWh", "USD")
    table = new_table(f"the sweep: {counted(len(plans), 'run')}", headings, left=("",), box=None)
    for plan in plans:
        cells = gib(plan.memory.total), *_billed(plan.bill)
        table.add_row(plan.title, f"{plan.load.steps:,}", *cells)
    hours, kwh, cost = totals(plans)
    table.add_row(
        "together, one after the other",
        f"{sum(plan.load.steps for plan in plans):,}",
        gib(max(plan.memory.total for plan in plans)),
        _time(hours),
        f"{kwh:.2f}",
        f"{cost:.2f}",
        style="bold",
    )
    console.print(table, highlight=False)


def totals(plans: Sequence[Plan]) -> tuple[float, float, float]:
    """Hours, kWh and dollars of all plans; those without a bill count nothing."""
    bills = [plan.bill for plan in plans if plan.bill is not None]
    return (
        sum(bill.hours for bill in bills),
        sum(bill.kwh for bill in bills),
        sum(bill.cost for bill in bills),
    )


def bar(memory: Memory, limit: float) -> Text:
    """The terms drawn to scale, a letter each, and a mark where the machine's memory ends.

    A run that takes less than a quarter of the machine is drawn without the rest.
    """
    whole = max(memory.total, limit) if memory.total > limit / 4 else memory.total
    scale = BAR / whole
    text = Text("  ", no_wrap=True)
    drawn, end = 0, 0.0
    for name, size in memory.terms().items():
        letter, colour, _ = TERMS[name]
        end += size * scale
        width = round(end) - drawn
        text.append(letter * width, colour)
        drawn += width
    room = round(limit * scale) - drawn
    if whole < limit:
        text.append(f"  {memory.total / limit:.1%} of the machine", "dim")
    elif room >= 0:
        text.append(" " * room)
        text.append("|", "bold")
    else:
        text.append(f"  ends {gib(memory.total - limit)} beyond the machine", "bold red")
    return text


def _size(size: float) -> str:
    return gib(size) if size >= 2**20 else f"{size / 2**10:,.1f} KiB"


def gib(size: float) -> str:
    """Bytes for people."""
    return f"{size / GIB:,.1f} GiB" if size >= GIB else f"{size / 2**20:,.0f} MiB"


def _facts(plan: Plan) -> Table:
    shape, load = plan.shape, plan.load
    made, about = load.budget, "" if load.exact else "about "
    table = Table(title=plan.title, title_justify="left", show_header=False, box=None)
    table.add_column(style="bold")
    table.add_column()
    rows = [
        ("base", _base(plan)),
        (
            "adapter",
            "none: all weights are trained"
            if shape.whole
            else f"rank {plan.knobs.rank}, {shape.trainable:,} trainable parameters "
            f"({shape.share:.2%} of the base)",
        ),
        *([("teacher", f"{_count(shape.teacher)} parameters, frozen")] if shape.teacher else []),
        *([("reference", _reference(plan))] if shape.needs_reference else []),
        (
            "data",
            f"{counted(made.documents, 'document')}, {about}{made.tokens:,} tokens an epoch, "
            f"{load.labelled:.0%} trained ({load.source})",
        ),
        ("packing", f"{counted(made.rows, 'row')}, {made.density:.0%} full"),
        (
            "steps",
            f"{about}{load.steps:,}: {load.epochs:.3g} epochs of {made.steps_per_epoch:,}, about "
            f"{load.tokens_per_step:,.0f} tokens and {made.effective_batch:.1f} documents each",
        ),
    ]
    if (probe := plan.probe) is not None:
        said = f"{probe.tokens_per_second:,.0f} tokens/s, peak {gib(probe.peak_bytes)}"
        rows.append(("probe", f"{said}, over {probe.steps} steps on this machine"))
    for row in rows:
        table.add_row(*row)
    return table


def _base(plan: Plan) -> str:
    shape, stored = plan.shape, plan.knobs.settings.quantization.title
    how = f", stored in {stored}" if stored else ""
    return f"{shape.name}, {_count(shape.parameters)} parameters{how} ({shape.source})"


def _reference(plan: Plan) -> str:
    """The pass before the first step, of train and validation: its time and what is kept of it."""
    passes = 2 if plan.shape.needs_mismatched else 1
    tokens = passes * (plan.load.budget.tokens + plan.load.valid_tokens)
    size = REFERENCE_BYTES * passes * plan.load.segments
    time = "" if plan.bill is None else f", about {_time(plan.bill.reference_hours)}"
    return (
        f"one forward pass over {tokens:,} tokens before the first step{time}; {_size(size)} kept "
        "in the cache for later runs"
    )


def _memory_title(plan: Plan) -> Text:
    settings = plan.knobs.settings
    verdict = "fits" if plan.fits else "does NOT fit"
    switched = "without" if settings.checkpointing else "with"
    return Text.assemble(
        "\n",
        (f"memory: {gib(plan.memory.total)} {verdict} ", "bold" if plan.fits else "bold red"),
        f"on {plan.machine.title} ({gib(plan.machine.bytes)} usable), {settings.precision}; "
        f"{switched} gradient checkpointing {gib(plan.toggled.total)}",
    )


def _terms(plan: Plan) -> Table:
    table = Table(box=None, show_header=False, pad_edge=True)
    table.add_column()
    table.add_column()
    table.add_column(justify="right")
    table.add_column()
    for name, size in plan.memory.terms().items():
        letter, colour, meaning = TERMS[name]
        table.add_row(Text(letter, colour), name, gib(size), Text(meaning, "dim"))
    return table


def _changes(plan: Plan) -> Table:
    headings = ("change", "memory", "", "price")
    left = ("change", "", "price")
    table = new_table("what would make it fit, cheapest first", headings, left=left, box=None)
    for change in plan.changes:
        verdict = Text("fits", "green") if change.fits else Text("still too much", "red")
        table.add_row(change.words, gib(change.total), verdict, change.price)
    return table


def _elsewhere(plan: Plan) -> str:
    """Machines that hold the run as it is, cheapest first."""
    room = [row for row in plan.rows if row.fits and row.machine != plan.machine]
    if not room:
        return "As it is, it fits on none of the machines below."
    room.sort(key=lambda row: row.bill.cost if row.bill else float("inf"))
    found = [f"{row.name} ({row.bill.cost:.2f} USD)" if row.bill else row.name for row in room]
    return f"As it is, it fits on {', '.join(found)}."


def _devices(plan: Plan) -> Table:
    headings = ("machine", "usable", "needed", "", "time", "kWh", "USD")
    table = new_table("on every machine known", headings, left=("machine", ""), box=None)
    for row in plan.rows:
        verdict = Text("fits", "green") if row.fits else Text("too small", "red")
        table.add_row(
            *(row.name, gib(row.machine.bytes), gib(row.needed), verdict),
            *_billed(row.bill if row.fits else None),
            style="bold" if row.machine == plan.machine else "",
        )
    return table


def _billed(bill: Bill | None) -> list[str]:
    """Time, kWh and dollars."""
    if bill is None:
        return ["-", "-", "-"]
    return [_time(bill.hours), f"{bill.kwh:.2f}", f"{bill.cost:.2f}"]


def _time(hours: float) -> str:
    if hours >= 1:
        return f"{hours:,.1f} h"
    seconds = f"{hours * 3600:.0f} s" if hours * 3600 >= 0.5 else "under 1 s"
    return f"{hours * 60:.0f} min" if hours >= 1 / 60 else seconds


def _count(number: int) -> str:
    return f"{number / 1e9:,.2f}B" if number >= 1e9 else f"{number / 1e6:,.1f}M"
