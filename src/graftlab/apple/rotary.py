"""Rotary embedding in a tamm model: its rotation of neighbouring pairs, as one complex product.

    pair      (x[2i], x[2i + 1])  as  x[2i] + j x[2i + 1]
    turned    by the angle of position and i: times  cos + j sin

tamm multiplies every pair by a 2 x 2 matrix, through a product four times the size of its input;
that took a third of a step. For the gradient nothing but the angles is kept.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from graftlab.apple.attention import swap_modules


class Rotary(nn.Module):
    """In the place of tamm's `RoPETransform`; has no parameters."""

    def forward(
        self,
        query: Tensor,
        key: Tensor | None = None,
        value: Tensor | None = None,
        *,
        query_rope_coefficients: Tensor,
        key_rope_coefficients: Tensor | None = None,
    ) -> Any:
        """Heads side by side, (B, T, H * D); coefficients (B * T, 1, D / 2, 2, 2) of tamm."""
        query = rotate(query, query_rope_coefficients)
        if key is None:
            return query
        assert key_rope_coefficients is not None, "keys are turned by coefficients of their own"
        return query, rotate(key, key_rope_coefficients), value


def rotate(x: Tensor, coefficients: Tensor) -> Tensor:
    """`x` (B, T, H * D) turned; computed in fp32 and given back in its own dtype."""
    turn = torch.complex(
        coefficients[..., 0, 0].float().contiguous(), coefficients[..., 1, 0].float().contiguous()
    )  # (B * T, 1, D / 2)
    pairs = x.float().reshape(turn.shape[0], -1, turn.shape[-1], 2)  # (B * T, H, D / 2, 2)
    return torch.view_as_real(torch.view_as_complex(pairs) * turn).view(x.shape).to(x.dtype)


def turn_faster(model: nn.Module) -> None:
    """Put `Rotary` into every layer of `model` that turns queries and keys."""
    from tamm.layers.attention import RoPETransform

    swap_modules(model, RoPETransform, lambda own: Rotary())
