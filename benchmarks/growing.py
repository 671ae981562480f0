"""A larger model that computes the very same function, for timing a real one of a chosen size.

width    the hidden state gets zeros behind it; a norm over four times the width is half as large,
         so its weights are doubled back, and its epsilon shrinks with the mean
heads    more of them, whose output nothing takes
MLP      more neurons, whose output nothing takes
depth    layers between the others that add nothing

Every weight takes part in the arithmetic as any other does; only what reaches the residual is zero.
"""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def grow(model: PreTrainedModel, *, hidden: int, intermediate: int, layers: int) -> PreTrainedModel:
    """`model` (a Qwen2 with tied embeddings) at `hidden` width, a multiple of its own."""
    small = model.config
    times = hidden // small.hidden_size
    assert hidden == times * small.hidden_size, "a whole multiple keeps heads and groups whole"
    assert small.tie_word_embeddings, "the head must be the embedding"
    config = copy.deepcopy(small)
    config.hidden_size, config.intermediate_size = hidden, intermediate
    config.num_hidden_layers, config.layer_types = layers, ["full_attention"] * layers
    groups = small.num_attention_heads // small.num_key_value_heads
    heads = hidden // small.head_dim // groups * groups
    config.num_attention_heads, config.num_key_value_heads = heads, heads // groups
    config.rms_norm_eps = small.rms_norm_eps / times
    torch.manual_seed(0)
    large = type(model)(config).eval()
    # Evenly spread, so that the layers in between are not all at the end.
    places = [
        round((index + 1) * layers / small.num_hidden_layers) - 1
        for index in range(small.num_hidden_layers)
    ]
    with torch.no_grad():
        for layer in large.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        for place, old in zip(places, model.model.layers, strict=True):
            _take_over(large.model.layers[place], old, scale=1 / math.sqrt(times))
        _corner(large.model.embed_tokens.weight.zero_(), model.model.embed_tokens.weight)
        _corner(large.model.norm.weight, model.model.norm.weight / math.sqrt(times))
    large.tie_weights()
    return large


def _take_over(new: nn.Module, old: nn.Module, *, scale: float) -> None:
    """Every weight of `old` into its corner of `new`."""
    theirs = dict(old.named_parameters())
    for name, parameter in new.named_parameters():
        _corner(parameter, theirs[name] * (scale if "layernorm" in name else 1.0))


def _corner(large: Tensor, small: Tensor) -> None:
    large[tuple(slice(size) for size in small.shape)] = small


def fuse(model: PreTrainedModel, run: Path) -> None:
    """Add the adapter of `run` to the weights of `model`."""
    from peft import PeftModel

    PeftModel.from_pretrained(model, str(run / "adapter")).merge_and_unload()
