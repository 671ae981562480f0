"""The verb `plan`: memory, time and cost of a training run, before anything is spent.

Run as:  graftlab plan experiment=ficino device=h100
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from graftlab.errors import ConfigError
from graftlab.tasks.supply import supply
from graftlab.tasks.train import TrainSpec

if TYPE_CHECKING:
    from graftlab.planning.plan import Plan


@dataclass(kw_only=True, slots=True)
class PlanSpec(TrainSpec):
    """`graftlab plan`: every key and experiment of `train`, and whether to try a few steps."""

    probe: bool = False
    """Train a few real steps on this machine, and reckon from what they measure."""

    def check(self) -> None:
        """What a plan needs to be there: less than training does. Raises GraftlabError."""
        if self.data.has_files:
            self.data.check()
        if self.model.on_disk:
            self.model.folder()


def run(spec: PlanSpec) -> Plan:
    """Reckon, print the plan, and return it; no weight is loaded unless `probe` is asked for.

    Raises ConfigError, DataError or ModelError saying what is missing and how to give it.
    """
    from graftlab.planning.show import show
    from graftlab.tasks.reckon import reckon_run
    from graftlab.tracking.console import console

    spec.check()
    supply(spec.data)
    plan = reckon_run(spec, probed=spec.probe)
    show(plan, console())
    return plan


def summarise(plans: Sequence[Plan], spec: PlanSpec) -> None:
    """What the jobs of a sweep take together, against the budget; the door calls it after -m."""
    from graftlab.planning.show import show_total, totals
    from graftlab.tracking.console import console, say

    show_total(plans, console())
    hours, _, cost = totals(plans)
    for line in spec.budget.passed(hours=hours, cost=cost):
        say(f"! the sweep as a whole: {line}.")


def refuse_over_budget(spec: TrainSpec, *, done_steps: int = 0) -> None:
    """Raise ConfigError where a run would pass its `budget`; nothing is loaded for it.

    `done_steps` were taken by an earlier start of the same run, and are paid already.
    """
    from graftlab.tasks.reckon import reckon_run

    _require_device(spec)
    plan = reckon_run(spec, done_steps=done_steps)
    if plan.bill is None:
        raise ConfigError(
            f"budget: nothing is known of how fast {spec.device.title} is. Give "
            "device.achieved.bf16=TFLOPS (and fp32), or another device=NAME."
        )
    if plan.broken:
        about = "" if plan.load.exact else ", token counts estimated"
        raise ConfigError(
            "\n".join(plan.broken)
            + f"\nreckoned for {spec.device.title}, {plan.load.steps:,} steps{about}. Fewer "
            "epochs=N or max_steps=N, a faster device=NAME, or raise the limit; `graftlab plan` "
            "with the same words shows the whole reckoning."
        )


def _require_device(spec: TrainSpec) -> None:
    """A run on a GPU cannot be reckoned for a processor."""
    if spec.device.kind != "cpu" or spec.trainer.accelerator == "cpu":
        return
    from graftlab.training.device import pick_device

    place = pick_device(spec.trainer.accelerator)
    if place.type != "cpu":
        raise ConfigError(
            f"budget: the run is on {place.type}, and device=cpu is reckoned with. Say which "
            "machine it is: device=h100, for instance (`graftlab plan --help device` lists them)."
        )
