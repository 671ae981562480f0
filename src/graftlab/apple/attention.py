"""Packed attention in a tamm model: in the place of each layer's scaled dot product attention.

tamm builds a mask of all pairs of positions from segment ids. Here the tables of segments travel in
its place, through the same argument, and the backends of `packing.attention` compute from them;
under a true mask, as reading with a cache gives, tamm's own layer computes.
"""

from __future__ import annotations

from typing import Any

import torch
from tamm.layers.side_outputs import OutputWithSideOutputs
from torch import Tensor, nn
from torch.nn import functional

from graftlab.packing.attention import packed_attention


class PackedSDPA(nn.Module):
    """Has no parameters; `backend` is segments, varlen or dense, set once the base has chosen."""

    def __init__(self, own: Any) -> None:
        super().__init__()
        assert own.sliding_window_size is None, "tamm's AFM models attend to the whole document"
        self.own = own
        self.backend = "segments"

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None = None,
        flash_attention_options: Any = None,
    ) -> Any:
        """Heads side by side: query (1, N, H * D), key and value (1, N, K * D) -> (1, N, H * D).

        `attention_mask` of fewer than three dimensions is one of `as_mask`.
        """
        if attention_mask is None or attention_mask.ndim > 2:
            return self.own(query, key, value, attention_mask, flash_attention_options)
        boundaries, parents = _tables(attention_mask)
        out, _ = packed_attention(
            self,
            _heads(query, self.own.num_heads),
            _heads(key, self.own.num_kv_heads),
            _heads(value, self.own.num_kv_heads),
            None,
            scaling=self.own.scale,
            softcap=self.own.logits_soft_cap,
            boundaries=boundaries,
            parents=parents,
            packed_backend=self.backend,
        )
        out = out.flatten(-2)
        if self.own.output_kv_state:  # the layers behind reuse this one's keys and values
            return OutputWithSideOutputs(out, side_outputs={"key": key, "value": value})
        return out


def as_mask(boundaries: Tensor, parents: Tensor | None) -> Tensor:
    """The tables of `Batch` as one tensor: (segments + 1,), or (2, segments + 1) with parents."""
    if parents is None:
        return boundaries
    return torch.stack([boundaries, functional.pad(parents, (0, 1), value=-1)])


def _tables(mask: Tensor) -> tuple[Tensor, Tensor | None]:
    return (mask, None) if mask.ndim == 1 else (mask[0], mask[1, :-1])


def _heads(x: Tensor, count: int) -> Tensor:
    """(1, N, H * D) -> (1, H, N, D)."""
    return x.view(*x.shape[:-1], count, -1).transpose(1, 2)


def pack(model: nn.Module) -> list[PackedSDPA]:
    """Put packed attention into every layer of `model`, in order."""
    from tamm.layers.attention import ScaledDotProductAttention

    found = []
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, ScaledDotProductAttention):
                packed = PackedSDPA(child)
                parent.add_module(name, packed)
                found.append(packed)
    assert found, "a transformer has attention"
    return found
