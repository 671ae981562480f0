"""Copying, wired by hand: the first two attention layers of the tiny base are set, not trained.

A model learns to copy names from its prompt with induction heads (arXiv 2209.11895), which appear
late: six million tokens of text brought none here. Their two parts can be written down:

    layer 0   group 0   heads look 1 and 2 tokens back and carry the tokens they find into
                        subspaces BEFORE and BEFORE_THAT of the residual stream
              group 1   heads look at everything evenly: what the text so far is made of
    layer 1   group 0   asks where the current token was the one before, and copies from there
              group 1   asks where the previous token was the one before that, and copies from there

    text       ... a b c ...... b ?        layer 1 finds c, whose BEFORE holds b, and copies c

Tokens are compared and copied through random orthogonal projections, which work for any embedding;
so the embeddings, and everything above, are trained as usual around the fixed wiring.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from transformers import Qwen2ForCausalLM

LAYERS = 2  # the first ones, whose attention is set

LOOK_BACK = 8.0  # size of the biases: how sharply a head looks at one distance
CARRY = 0.1  # how strongly found tokens are written beside the token itself
MATCH = 2.5  # how sharply equal tokens find each other
COPY = 1.0  # how strongly the copied token is written


def wire(model: Qwen2ForCausalLM, *, generator: torch.Generator) -> None:
    """Set and freeze the attention of the first `LAYERS` layers, in place.

    For two groups of two query heads each, in a model whose hidden size is at least three heads.
    MLPs start silent, so that nothing disturbs the wiring before it is of use.
    """
    import torch

    config = model.config
    assert config.num_attention_heads == 4
    assert config.num_key_value_heads == 2
    size = config.head_dim
    assert 3 * size <= config.hidden_size
    basis = _orthogonal(config.hidden_size, generator)
    before, before_that, itself = (basis[:, i * size : (i + 1) * size] for i in range(3))
    with torch.no_grad():
        for layer in model.model.layers:
            layer.mlp.down_proj.weight.zero_()
        first, second = (layer.self_attn for layer in model.model.layers[:LAYERS])
        for part in (first.q_proj, first.k_proj):
            part.weight.zero_()
            part.bias.zero_()
        # Query and key are biases only, so a score depends on the distance alone: rotary angles
        # turn with it, and all of them agree where the query was turned by as much.
        angles = model.model.rotary_emb.inv_freq
        half = size // 2
        first.k_proj.bias[:half] = LOOK_BACK
        first.v_proj.weight[:size] = itself.T
        for head, subspace in enumerate((before, before_that)):
            query = first.q_proj.bias[head * size : (head + 1) * size]
            query[:half] = LOOK_BACK * torch.cos((head + 1) * angles)
            query[half:] = -LOOK_BACK * torch.sin((head + 1) * angles)
            first.o_proj.weight[:, head * size : (head + 1) * size] = CARRY * subspace
        for group, (asks, finds) in enumerate(((itself, before), (before, before_that))):
            rows = slice(group * size, (group + 1) * size)
            copied = _orthogonal(config.hidden_size, generator)[:, :size]
            second.k_proj.weight[rows] = MATCH * finds.T
            second.v_proj.weight[rows] = copied.T
            for head in (2 * group, 2 * group + 1):
                place = slice(head * size, (head + 1) * size)
                second.q_proj.weight[place] = MATCH * asks.T
                second.o_proj.weight[:, place] = COPY * copied
    for attention in (first, second):
        attention.requires_grad_(False)


def _orthogonal(size: int, generator: torch.Generator) -> torch.Tensor:
    import torch

    basis: torch.Tensor = torch.linalg.qr(torch.randn(size, size, generator=generator))[0]
    return basis
