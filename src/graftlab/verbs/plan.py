"""The verb `plan`: memory, time and cost of a training run, before anything is spent.

Run as:  graftlab plan experiment=ficino machine=h100
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from graftlab.recipes.dataset import ensure_dataset
from graftlab.verbs.train import TrainCommand

if TYPE_CHECKING:
    from graftlab.planning.plan import Plan


@dataclass(kw_only=True, slots=True)
class PlanSpec(TrainCommand):
    """`graftlab plan`: every key and experiment of `train`, and whether to try a few steps."""

    probe: bool = False
    """Train a few real steps on this machine, and plan with what they measure."""

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
    from graftlab.console import console
    from graftlab.planning.estimate import estimate_run
    from graftlab.planning.show import show

    spec.check()
    ensure_dataset(spec.data)
    plan = estimate_run(spec, probed=spec.probe)
    show(plan, console())
    return plan


def summarise(plans: Sequence[Plan], spec: PlanSpec) -> None:
    """What the jobs of a sweep take together, against the budget; the door calls it after -m."""
    from graftlab.console import console, say
    from graftlab.planning.show import show_total, totals

    show_total(plans, console())
    hours, _, cost = totals(plans)
    for line in spec.budget.passed(hours=hours, cost=cost):
        say(f"! the sweep as a whole: {line}.")
