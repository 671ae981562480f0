"""The first screen of a run: what was chosen and why, before anything is spent."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from rich.table import Table

from graftlab.tracking.console import console
from graftlab.training.device import device_name

if TYPE_CHECKING:
    from graftlab.adapters.base import Adapter
    from graftlab.tasks.train import TrainSpec
    from graftlab.training.place import Place
    from graftlab.training.plan import StepPlan
    from graftlab.training.precision import Resolved
    from graftlab.training.run import Data


def announce(
    spec: TrainSpec,
    plan: StepPlan,
    adapter: Adapter,
    data: Data,
    precision: Resolved,
    place: Place,
    *,
    compile_reason: str,
    probe: str,
) -> None:
    """What was chosen and why, before anything is spent."""
    base = adapter.base
    share = adapter.num_trainable / base.num_parameters
    labels = int(data.train.num_labels.sum())
    tokens = int(data.train.lengths.sum())
    processes = f", {place.world_size} processes" if place.world_size > 1 else ""
    valid = f"; {len(data.valid)} for validation" if data.valid else "; no validation data"
    table = Table(title="this run", title_justify="left", show_header=False, box=None)
    table.add_column(style="bold")
    table.add_column()
    lora = spec.lora
    rows: list[tuple[str, str]] = [
        ("base", f"{base.name}, {base.num_parameters / 1e6:,.1f}M parameters, frozen"),
        (
            "adapter",
            f"rank {lora.rank}, alpha {lora.effective_alpha:g}, "
            f"{adapter.num_trainable:,} trainable parameters ({share:.2%} of the base)",
        ),
        ("device", device_name(place.device) + processes),
        ("precision", f"{precision.name} ({precision.reason})"),
        ("attention", probe),
        ("compile", compile_reason),
        (
            "data",
            f"{len(data.train)} documents, {tokens:,} tokens, {labels:,} trained "
            f"({labels / tokens:.0%}){valid}",
        ),
        (
            "packing",
            f"{spec.packing.strategy}, {len(plan.train.rows)} rows of at most "
            f"{spec.packing.max_length}, density {plan.packing_density:.1%}",
        ),
        (
            "steps",
            f"{plan.total_steps} ({plan.steps_per_epoch} per epoch, {plan.warmup_steps} warm-up), "
            f"about {plan.tokens_per_step:,.0f} tokens each",
        ),
    ]
    for name, value in rows:
        table.add_row(name, value)
    console().print(table, highlight=False)
    sys.stdout.flush()
