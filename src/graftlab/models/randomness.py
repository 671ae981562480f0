"""What a base draws at random while it is trained, switched off: dropout and dropped layers.

The base is a fixed function: what is compared with it (KL, DPO, probes, a resumed run) relies on
that. Some layers hold a module for it, others a rate among their attributes.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

RATE = re.compile(r"drop")
"""Attributes of transformers' layers such as `residual_dropout` and `layerdrop`."""


def silence_randomness(model: nn.Module) -> None:
    """Set every such rate in `model` to zero."""
    from torch import nn

    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name, value in vars(module).items():
            if isinstance(value, float) and RATE.search(name):
                setattr(module, name, 0.0)
