"""Floating-point operations of a training step, for the share of the device's peak."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from graftlab.models.base import Base


def flops_per_token(
    base: Base, *, num_trainable: int, mean_length: float, labelled_share: float
) -> float:
    """Multiply-adds count two. Frozen weights: forward and the input's gradient, 4 per weight;
    trained ones also their own gradient, 6. The head runs at labelled positions only. Attention:
    two products over half the document on average, forward once and backward twice.
    """
    layers = list(base.layers)
    body = sum(
        module.weight.numel()
        for layer in layers
        for module in layer.modules()
        if isinstance(module, torch.nn.Linear)
    )
    sizes = base.dimensions
    head = sizes.vocab_size * sizes.hidden_size * labelled_share
    attention = 3 * 2 * 2 * sizes.attention_width * (mean_length / 2) * len(layers)
    total: float = 4.0 * (body - num_trainable + head) + 6.0 * num_trainable + attention
    return total
