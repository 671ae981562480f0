"""The names that mlx-lm's `afm7` has for the parts of Apple's model, and the base under them.

tamm                                    afm7
layers.segment_0.layer_3                model.layers.3
layers.segment_1.layer_3                model.kv_reuse_layers.3
attention.qkv_transform ... lora_1      self_attn.qkv_proj, second of three matrices
feed_forward.hidden_transform.linear_0  mlp.gate_proj

Both rotate neighbouring pairs, so nothing is permuted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from graftlab.apple.exports.layout import place_of
from graftlab.apple.model import SIZES
from graftlab.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor

LAYERS = ("model.layers", "model.kv_reuse_layers")
MODULES = {
    "attention.qkv_transform": "self_attn.qkv_proj",
    "attention.q_transform": "self_attn.q_proj",
    "attention.output_transform": "self_attn.out_proj",
    "feed_forward.hidden_transform.linear_0": "mlp.gate_proj",
    "feed_forward.hidden_transform.linear_1": "mlp.up_proj",
    "feed_forward.output_transform": "mlp.down_proj",
}
WEIGHTS = {
    "attention.norm": "input_layernorm",
    "attention.qk_norm.query_norm": "self_attn.q_norm",
    "attention.qk_norm.key_norm": "self_attn.k_norm",
    "attention.q_norm.query_norm": "self_attn.q_norm",
    "feed_forward.norm": "post_attention_layernorm",
    "attention.qkv_transform.fused_linear": "self_attn.qkv_proj",
    **{tamm: mlx for tamm, mlx in MODULES.items() if tamm != "attention.qkv_transform"},
}
RANGES = {"key_quantizer": "quant_key_scale", "value_quantizer": "quant_value_scale"}

_WEIGHT = re.compile(r"layers\.segment_([01])\.layer_(\d+)\.(.+)\.weight")
_RANGE = re.compile(
    r"layers\.segment_0\.layer_(\d+)\.attention\.kv_quantizer\.(\w+)\.activation_post_process\.range"
)
COUNT = "activation_post_process.num_samples"
"""How many batches a quantiser has seen: for its training only."""
HEAD = "output_transform.weight"
"""Tied to the embedding, under which name it is written."""


def adapter_key(name: str) -> str:
    """The module within its layer that a tensor of the adapter belongs to, such as mlp.up_proj."""
    return MODULES[place_of(name).module]


def adapter_name(name: str) -> str:
    """The name of a tensor of the adapter."""
    place = place_of(name)
    module = f"{LAYERS[place.segment]}.{place.layer}.{MODULES[place.module]}"
    part = "" if place.part is None else f".{place.part}"
    return f"{module}.lora_{place.matrix}{part}"


def base_weights(state: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """The base's weights under the names of `afm7`; those of an adapter are left out.

    Raises ModelError for a model without quantised keys and values, which `afm7` cannot express,
    and for a tensor that it has no name for.
    """
    if not any(_RANGE.fullmatch(name) for name in state):
        raise ModelError(
            "mlx-lm's afm7 always quantises keys and values, and this base has no ranges for it."
        )
    for name, tensor in state.items():
        if ".adapters." in name or name == HEAD or name.endswith(COUNT):
            continue
        if (found := _RANGE.fullmatch(name)) is not None:
            yield f"{LAYERS[0]}.{found[1]}.self_attn.{RANGES[found[2]]}", _scale(tensor)
        else:
            yield _weight_name(name), tensor


def base_config(described: Mapping[str, Any]) -> dict[str, Any]:
    """`config.json` from a toolkit's base-model-config.json; what that leaves out is tamm's own."""
    defaults = {**SIZES, "rope_theta": 500_000.0}
    return {"model_type": "afm7", **{k: described.get(k, v) for k, v in defaults.items()}}


def _weight_name(name: str) -> str:
    outer = {"embedding.weight": "model.embedding.weight",
             "output_norm.weight": "model.output_norm.weight"}  # fmt: skip
    if name in outer:
        return outer[name]
    match = _WEIGHT.fullmatch(name.replace(".wrapped", ""))
    if match is None or match[3] not in WEIGHTS:
        raise ModelError(f"{name} has no place in mlx-lm's afm7.")
    return f"{LAYERS[int(match[1])]}.{match[2]}.{WEIGHTS[match[3]]}.weight"


def _scale(extent: Tensor) -> Tensor:
    """The step of 8-bit numbers that hold this range (low, high), as tamm computes it."""
    import torch

    low, high = extent.float()
    return torch.maximum(low / -128, high / 127)
