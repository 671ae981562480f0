"""The first screen of a joint run: what all share, and each adapter in a line."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Table

from graftlab.console import console
from graftlab.errors import counted
from graftlab.training.announce import warn_of_length
from graftlab.training.device import device_name

if TYPE_CHECKING:
    from graftlab.training.joint.joint_run import JointRun
    from graftlab.training.setup import Setup


def announce(shared: Setup, runs: Sequence[JointRun], probe: str) -> None:
    """Print both tables. `probe` is what was found about isolation."""
    base, data, plan = runs[0].adapter.base, shared.data, shared.plan
    trainable = sum(run.adapter.num_trainable for run in runs)
    valid = f"; {len(data.valid)} for validation" if data.valid else "; no validation data"
    documents = counted(len(data.train), "document")
    facts = Table(title="joint run", title_justify="left", show_header=False, box=None)
    facts.add_column(style="bold")
    facts.add_column()
    for name, value in [
        ("base", f"{base.name}, {base.num_parameters / 1e6:,.1f}M parameters, frozen, once"),
        ("adapters", f"{len(runs)}, {trainable:,} trainable parameters together"),
        ("device", device_name(shared.place.device)),
        ("precision", f"{shared.precision.name} ({shared.precision.reason})"),
        ("attention", probe),
        ("compile", "layers under several adapters are not compiled"),
        ("data", f"{documents}, {int(data.train.lengths.sum()):,} tokens{valid}"),
        ("packing", f"{counted(len(plan.train.rows), 'row')}, density {plan.packing_density:.1%}"),
    ]:
        facts.add_row(name, value)
    console().print(facts, highlight=False)
    console().print(_adapters(runs), highlight=False)
    warn_of_length(shared, base)
    sys.stdout.flush()


def announce_joiners(runs: Sequence[JointRun]) -> None:
    """A line for each run that joins the others."""
    console().print(_adapters(runs, title="joined"), highlight=False)
    sys.stdout.flush()


def _adapters(runs: Sequence[JointRun], *, title: str | None = None) -> Table:
    table = Table(box=None, title=title, title_justify="left")
    for heading in ("run", "rank", "alpha", "lr", "steps", "from step"):
        table.add_column(heading, justify="left" if heading == "run" else "right")
    for run in runs:
        spec = run.job.spec
        table.add_row(
            spec.name or run.job.folder.path.name,
            str(spec.lora.rank),
            f"{spec.lora.effective_alpha:g}",
            f"{spec.lr:g}",
            str(run.setup.plan.total_steps),
            str(run.resumed.step if run.resumed else 0),
        )
    return table
