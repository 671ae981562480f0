"""Apple's model in mlx-lm: an adapter for its `afm7`, and the base under it.

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
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftlab.apple.exports.layout import place_of
from graftlab.apple.exports.source import TrainedAFM, described
from graftlab.apple.files import find_assets, read_weights
from graftlab.apple.model import SIZES
from graftlab.errors import ConfigError, ModelError
from graftlab.exports.mlx import InMLX, in_mlx
from graftlab.exports.mlx_base import CONFIG, WEIGHTS, MLXBase, base_in_mlx
from graftlab.exports.target import compare_file, save_tensors, write_config

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
NAMES = {
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
HOW = "load it with graftlab.exports.mlx.load_adapter: mlx-lm's own refuses it"


@in_mlx.register
def _(adapter: TrainedAFM) -> InMLX:
    # tamm keeps both matrices transposed, and so does MLX.
    state = {adapter_name(name): tensor.contiguous() for name, tensor in adapter.state.items()}
    keys = {MODULES[place_of(name).module] for name in adapter.state}
    return InMLX(state, keys, notes=(HOW,))


class AFM7Base(MLXBase):
    """Apple's model as `afm7`."""

    def check(self, bits: int | None) -> None:
        if bits is not None:
            raise ConfigError("target.bits is for bases of Hugging Face: leave it out.")
        find_assets(self.folder)

    def write(self, folder: Path, bits: int | None) -> None:
        folder.mkdir()
        save_tensors(self._weights(), folder / WEIGHTS, library="mlx")
        write_config(folder / CONFIG, base_config(described(self.folder) or {}))

    def verify(self, folder: Path) -> list[str]:
        count = compare_file(folder / WEIGHTS, self._weights())
        return [f"{count} tensors of the base read back equal"]

    def _weights(self) -> dict[str, Tensor]:
        state = read_weights(find_assets(self.folder).weights)
        return {name: tensor.contiguous() for name, tensor in base_weights(state)}


@base_in_mlx.register
def _(adapter: TrainedAFM) -> MLXBase | None:
    return AFM7Base(adapter.base) if adapter.base else None


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


def base_config(content: Mapping[str, Any]) -> dict[str, Any]:
    """`config.json` from a toolkit's base-model-config.json; what that leaves out is tamm's own."""
    defaults = {**SIZES, "rope_theta": 500_000.0}
    return {"model_type": "afm7", **{k: content.get(k, v) for k, v in defaults.items()}}


def _weight_name(name: str) -> str:
    outer = {"embedding.weight": "model.embedding.weight",
             "output_norm.weight": "model.output_norm.weight"}  # fmt: skip
    if name in outer:
        return outer[name]
    match = _WEIGHT.fullmatch(name.replace(".wrapped", ""))
    if match is None or match[3] not in NAMES:
        raise ModelError(f"{name} has no place in mlx-lm's afm7.")
    return f"{LAYERS[int(match[1])]}.{match[2]}.{NAMES[match[3]]}.weight"


def _scale(extent: Tensor) -> Tensor:
    """The step of 8-bit numbers that hold this range (low, high), as tamm computes it."""
    import torch

    low, high = extent.float()
    return torch.maximum(low / -128, high / 127)
