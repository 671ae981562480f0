"""The first screen of a run: what was chosen and why, before anything is spent."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from rich.table import Table

from graftlab.console import console, say
from graftlab.errors import counted
from graftlab.training.device import device_name

if TYPE_CHECKING:
    from graftlab.adapters.base import Adapter
    from graftlab.models.base import Base
    from graftlab.training.setup import Setup


def announce(setup: Setup, adapter: Adapter, *, compile_reason: str, probe: str) -> None:
    """Print the table. `probe` is what was found about isolation."""
    table = Table(title="this run", title_justify="left", show_header=False, box=None)
    table.add_column(style="bold")
    table.add_column()
    for name, value in [
        *_model_rows(setup, adapter),
        ("attention", probe),
        ("compile", compile_reason),
        *_data_rows(setup),
    ]:
        table.add_row(name, value)
    console().print(table, highlight=False)
    warn_of_rounding(setup, adapter.base)
    warn_of_length(setup, adapter.base)
    sys.stdout.flush()


def warn_of_rounding(setup: Setup, base: Base) -> None:
    """Say what becomes of a base that is too small for the way it is stored."""
    stored = setup.spec.model.storage
    if base.num_parameters < stored.least_parameters:
        say(
            f"! {base.name} is small for quantization={stored.title}, at "
            f"{base.num_parameters / 1e6:,.0f}M parameters: {stored.caution}."
        )


def warn_of_length(setup: Setup, base: Base) -> None:
    """Say how many documents are longer than what the base was made to read."""
    beyond = int((setup.data.train.lengths > base.max_length).sum()) if base.max_length else 0
    if beyond:
        say(
            f"! {beyond} of {len(setup.data.train)} documents are longer than the "
            f"{base.max_length:,} positions that {base.name} was made for, and it reads poorly "
            f"beyond them: set packing.max_length={base.max_length} to leave those documents out."
        )


def _model_rows(setup: Setup, adapter: Adapter) -> list[tuple[str, str]]:
    base, lora, precision, place = adapter.base, setup.spec.lora, setup.precision, setup.place
    share = adapter.num_trainable / base.num_parameters
    processes = f", {place.world_size} processes" if place.world_size > 1 else ""
    kept = ", still loaded from the job before" if base.lendings > 1 else ""
    size = f"{base.name}, {base.num_parameters / 1e6:,.1f}M parameters"
    if stored := setup.spec.model.storage.title:
        size += f" stored in {stored}"
    what = [
        ("base", f"{size}, frozen{kept}"),
        (
            "adapter",
            f"rank {lora.rank}, alpha {lora.effective_alpha:g}, "
            f"{adapter.num_trainable:,} trainable parameters ({share:.2%} of the base)",
        ),
    ]
    what += [("", note) for note in adapter.notes]
    if lora.full:
        what = [("model", f"{size}, all of them trained{kept}")]
    if asked := setup.spec.objective.teacher_path():
        what.append(("teacher", f"{asked}, frozen"))
    return [
        *what,
        ("device", device_name(place.device) + processes),
        ("precision", f"{precision.name} ({precision.reason})"),
    ]


def _data_rows(setup: Setup) -> list[tuple[str, str]]:
    data, plan, packing = setup.data, setup.plan, setup.spec.packing
    labels = int(data.train.num_labels.sum())
    tokens = int(data.train.lengths.sum())
    valid = f"; {len(data.valid)} for validation" if data.valid else "; no validation data"
    return [
        (
            "data",
            f"{counted(len(data.train), 'document')}, {tokens:,} tokens, {labels:,} trained "
            f"({labels / tokens:.0%}){valid}",
        ),
        (
            "packing",
            f"{packing.strategy}, {counted(len(plan.train.rows), 'row')} of at most "
            f"{packing.max_length}, density {plan.packing_density:.1%}",
        ),
        (
            "steps",
            f"{plan.total_steps} ({plan.steps_per_epoch} per epoch, {plan.warmup_steps} warm-up), "
            f"about {plan.tokens_per_step:,.0f} tokens each",
        ),
    ]
