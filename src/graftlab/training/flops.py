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
    config = base.model.config.get_text_config()
    head = config.vocab_size * config.hidden_size * labelled_share
    width = config.num_attention_heads * (
        getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    )
    attention = 3 * 2 * 2 * width * (mean_length / 2) * len(layers)
    total: float = 4.0 * (body - num_trainable + head) + 6.0 * num_trainable + attention
    return total
