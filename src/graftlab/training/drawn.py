"""Initial weights that depend on the data: `lora.init=eva`, before the first step of a new run."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from graftlab.console import say
from graftlab.packing.loader import PackedLoader

if TYPE_CHECKING:
    from graftlab.adapters.base import Adapter
    from graftlab.adapters.peft_adapter import PeftAdapter
    from graftlab.training.setup import Setup


def draw_from_data(setup: Setup, adapter: Adapter, *, resumed: bool) -> None:
    """Draw the weights of a new adapter, the same in every process; else do nothing.

    Raises ConfigError where the data is too small.
    """
    lora, train = setup.spec.lora, setup.plan.train
    if lora.init != "eva" or lora.from_run is not None or resumed:
        return
    from graftlab.adapters.eva import fit_to_data

    batches = PackedLoader(train.tokens, train.rows, batch_size=train.batch_size, seed=train.seed)
    told = fit_to_data(cast("PeftAdapter", adapter), batches, autocast=setup.precision.autocast)
    if setup.writes:
        say(told)
