"""Floating-point operations of a training step, for the share of the device's peak."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from graftlab.models.base import Base
    from graftlab.text.encode import TokenSet


def flops_per_token(
    base: Base,
    *,
    num_trainable: int,
    mean_length: float,
    labelled_share: float,
    teacher: Base | None = None,
) -> float:
    """Multiply-adds count two. Frozen weights: forward and the input's gradient, 4 per weight;
    trained ones also their own gradient, 6. The head runs at labelled positions only. Attention:
    two products over half the document on average, forward once and backward twice. A teacher only
    goes forward: 2 per weight; so does the base where the objective asks it.
    """
    body, head, attention = _parts(base, mean_length, labelled_share)
    trained = min(num_trainable, body)  # of a model trained whole, the rest is embedding and head
    total = 4.0 * (body - trained + head) + 6.0 * trained + 3 * attention
    if teacher is not None:
        body, head, attention = _parts(teacher, mean_length, labelled_share)
        total += 2.0 * (body + head) + attention
    return total


def attended_length(tokens: TokenSet) -> float:
    """Mean length of the documents, or of plain ones whose tokens see as many others as these do.

    A token of a branch sees its prompt and what comes before it in the branch.
    """
    if tokens.segments is None:
        return float(tokens.lengths.mean())
    seen = 0.0
    for index in range(len(tokens)):
        ends: list[int] = []
        for length, parent, _ in tokens.segments[tokens.segments_of(index)].tolist():
            before = ends[parent] if parent >= 0 else 0
            seen += length * (before + length / 2)
            ends.append(before + length)
    return 2 * seen / float(tokens.lengths.sum())


def _parts(base: Base, mean_length: float, labelled_share: float) -> tuple[float, float, float]:
    """Weights that a token meets in the layers and in the head, and attention's forward FLOPs."""
    layers = list(base.layers)
    body = sum(
        module.weight.numel()
        for layer in layers
        for module in layer.modules()
        if isinstance(module, torch.nn.Linear)
    )
    sizes = base.dimensions
    head = sizes.vocab_size * sizes.hidden_size * labelled_share
    return body, head, 2 * 2 * sizes.attention_width * (mean_length / 2) * len(layers)
