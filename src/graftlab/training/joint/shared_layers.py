"""Below the first adapted layer all adapters compute the same, so it is computed once.

    layers 0..f-1      a a a a b b                                          (1, N)
    layers f...        a a a a b b | a a a a b b | a a a a b b              (1, K * N)

Layer f finds its inputs laid K times end to end, those behind it find their own output; what the
model hands to every layer (rotary embeddings, positions, boundaries) is laid along.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from graftlab.types import Batch


@contextmanager
def laid(layers: Sequence[nn.Module], batch: Batch, times: int) -> Iterator[None]:
    """While `batch` runs through the model, `layers` see it `times` times end to end."""
    if times == 1:
        yield
        return
    laying = _Laying(batch, times)
    with ExitStack() as stack:
        for layer in layers:
            handle = layer.register_forward_pre_hook(laying, with_kwargs=True)
            stack.callback(handle.remove)
        yield


class _Laying:
    """A layer's arguments, laid; each tensor that is handed to every layer only once."""

    def __init__(self, batch: Batch, times: int) -> None:
        self.shape = batch.input_ids.shape  # (1, N)
        self.times = times
        self.boundaries = lay_boundaries(batch.boundaries, times)
        self.parents = None if batch.parents is None else lay_parents(batch.parents, times)
        self.known: dict[int, tuple[Tensor, Tensor]] = {}

    def __call__(self, layer: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, Any]:
        args, kwargs = tree_map(self._lay, (args, kwargs))
        return args, {**kwargs, "boundaries": self.boundaries, "parents": self.parents}

    def _lay(self, value: Any) -> Any:
        if not isinstance(value, Tensor) or value.shape[:2] != self.shape:
            return value
        if id(value) not in self.known:
            repeats = (1, self.times, *(1 for _ in value.shape[2:]))
            self.known[id(value)] = value, value.repeat(repeats)
        return self.known[id(value)][1]


def lay_boundaries(boundaries: Tensor, times: int) -> Tensor:
    """Cumulative offsets [0, ..., N] of the segments, given again and again: [0, ..., K * N]."""
    length = boundaries[-1]
    shifts = torch.arange(times, dtype=boundaries.dtype)[:, None] * length
    return torch.cat([(boundaries[None, :-1] + shifts).flatten(), length[None] * times])


def lay_parents(parents: Tensor, times: int) -> Tensor:
    """Which segment each continues, in every copy one of its own; -1 stays."""
    shifts = torch.arange(times, dtype=parents.dtype)[:, None] * len(parents)
    return torch.where(parents < 0, parents, parents + shifts).flatten()
