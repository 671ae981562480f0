"""NaN and infinite values in a model's weights: found and named, where outputs show that some are.

Looking at every weight costs a pass over the whole base, so it is done when something went wrong:
the start-up probe, the first logits of a reply, a loss that is not a number.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from graftlab.errors import ModelError

if TYPE_CHECKING:
    from graftlab.models.base import Base


def describe_nonfinite(tensors: Iterable[tuple[str, Tensor]]) -> str | None:
    """`NAME (3 of 4,096 values are NaN, the first at [0, 7])` of the first such; None if none is.

    Tensors are looked at where they lie, one at a time.
    """
    for name, tensor in tensors:
        if not tensor.is_floating_point() or tensor.is_meta:
            continue
        values = tensor.detach()
        values = values.to_local() if hasattr(values, "to_local") else values  # its shard
        values = values.float() if values.element_size() == 1 else values
        finite = torch.isfinite(values)
        if bool(finite.all()):
            continue
        place = (~finite).nonzero()[0].tolist()
        count = int(values.numel() - finite.sum())
        kind = "NaN" if bool(values.isnan().any()) else "infinite"
        are = "is" if count == 1 else "are"
        return f"{name} ({count:,} of {values.numel():,} values {are} {kind}, the first at {place})"
    return None


def check_outputs(base: Base, *outputs: Tensor) -> None:
    """Raise ModelError naming the weight, where what the model computes is not finite."""
    if all(bool(torch.isfinite(values).all()) for values in outputs):
        return
    found = describe_base(base)
    if found is not None:
        raise ModelError(f"{base.name}: {found}")
    raise ModelError(
        f"{base.name}: what it computes is not finite, though all of its weights are: its numbers "
        "are too large for this precision. Use precision=bf16-mixed or precision=fp32."
    )


def describe_base(base: Base) -> str | None:
    """What is wrong with the weights of `base` as it lies in memory, in a sentence."""
    found = describe_nonfinite(chain(base.model.named_parameters(), base.model.named_buffers()))
    if found is None:
        return None
    return f"the weights are damaged: {found}. Fetch the files again, or take another base."
