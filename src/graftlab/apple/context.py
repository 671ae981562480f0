"""What Apple's on-device model has read: keys and values of its regular layers, growing by feeding.

    segment_0   layer 0 .. n-1     keys and values kept here, quantised as the model quantises them
    segment_1   layers behind      reuse those that layer n-1 has just read from here

tamm asks a view for one layer at a time; positions and mask are given with every pass.

Legend: B rows, T tokens fed, S tokens read, W width of the keys of all heads.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor

from graftlab.models.context import Context

if TYPE_CHECKING:
    from graftlab.models.base import Base


class LayerCache:
    """Keys and values (B, S, W) of one layer; a layer writes before it reads."""

    def __init__(self) -> None:
        self._kept: list[Tensor] = []

    def write_to_tail(self, *new: Tensor) -> None:
        """Append keys and values (B, T, W)."""
        kept = self._kept or [each[:, :0] for each in new]
        self._kept = [torch.cat(pair, dim=1) for pair in zip(kept, new, strict=True)]

    def read(self) -> tuple[Tensor, ...]:
        return tuple(self._kept)

    def crop(self, length: int) -> None:
        self._kept = [kept[:, :length] for kept in self._kept]

    def select(self, rows: Tensor) -> None:
        self._kept = [kept[rows] for kept in self._kept]


class Cache:
    """What tamm calls a view of a KV cache."""

    dtype = None  # the layers write in the dtype they compute in

    def __init__(self, num_layers: int) -> None:
        self.layers = [LayerCache() for _ in range(num_layers)]
        self._told: dict[str, Tensor] = {}

    def at_layer(self, layer_idx: int) -> LayerCache:
        return self.layers[layer_idx]

    def write_positions_to_tail(self, positions: Tensor) -> None:
        self._told["positions"] = positions

    def read_positions(self) -> Tensor:
        return self._told["positions"]

    def write_segment_ids_to_tail(self, segment_ids: Tensor) -> None:
        self._told["segment_ids"] = segment_ids

    def read_segment_ids(self) -> Tensor:
        return self._told["segment_ids"]


class AFMContext(Context):
    """Rows read through `Cache`, in tamm's own attention under a mask of causality and padding."""

    def __init__(self, base: Base, num_layers: int, *, padding: Tensor | None = None) -> None:
        """`padding` (B,) counts the left padding of each row; see `Base.context`.

        `num_layers` have keys and values of their own.
        """
        self.length = 0
        self.limit = base.max_length
        self._base = base
        self._cache = Cache(num_layers)
        padded = padding is not None and bool(padding.any())
        self._start = padding.to(base.device) if padding is not None and padded else None
        self._open = ExitStack()

    def __enter__(self) -> Self:
        self._open.enter_context(self._base.evaluating())
        self._open.enter_context(torch.compiler.set_stance("force_eager"))
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()

    @torch.no_grad()
    def feed(self, ids: Tensor, *, last: int | None = None) -> Tensor:
        last = ids.shape[1] if last is None else last
        outputs = self._base.model(
            ids, kv_cache=self._cache, mode="SKIP_OUTPUT_LAYER", **self._places(ids.shape)
        )
        self.length += ids.shape[1]
        return self._base.logits(outputs.last_hidden_state[:, -last:]).float()

    def crop(self, length: int) -> None:
        assert 0 <= length <= self.length, f"cannot crop {self.length} tokens to {length}"
        for layer in self._cache.layers:
            layer.crop(length)
        self.length = length

    def select(self, rows: Tensor) -> None:
        rows = rows.to(self._base.device)
        for layer in self._cache.layers:
            layer.select(rows)
        if self._start is not None:
            self._start = self._start[rows]

    def _places(self, fed: torch.Size) -> dict[str, Any]:
        """Positions (B, T), and which of S tokens each may see, (B or 1, T, S)."""
        rows, count = fed
        keys = torch.arange(self.length + count, device=self._base.device)
        queries = keys[self.length :]
        seen = (keys[None] <= queries[:, None])[None]
        if self._start is None:
            return {"positions": queries.expand(rows, -1), "attention_mask": seen}
        # A token of the padding sees itself alone: with nothing to see it would be NaN.
        real = (keys[None] >= self._start[:, None])[:, None]
        itself = (keys[None] == queries[:, None])[None]
        positions = (queries[None] - self._start[:, None]).clamp(min=0)
        return {"positions": positions, "attention_mask": (seen & real) | itself}
