"""The verb `tune`: learning rate, rank and epochs for a data set, from a fraction of a grid.

Run as:  graftlab tune model=hf model.path=DIR data=jsonl data.train=FILE
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from graftlab.tuning.spec import Tuning
from graftlab.verbs.train import TrainCommand

if TYPE_CHECKING:
    from graftlab.tuning.run import Outcome, TuneOrder


@dataclass(kw_only=True, slots=True)
class TuneSpec(TrainCommand):
    """`graftlab tune`: every key of `train`, and among which values it chooses."""

    tune: Tuning = field(default_factory=Tuning)
    train: bool = True
    """Only propose what was trained to its end; false may propose a run that was not."""


def run(order: TuneOrder) -> Outcome:
    """Train what is needed, and say and write what came out.

    Raises Interrupted after a signal, when the same line goes on, and GraftlabError where no run
    came to its end.
    """
    from graftlab.tuning.run import run as tune

    return tune(order)
