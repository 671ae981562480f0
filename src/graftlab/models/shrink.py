"""A smaller model of the same architecture: its `config.json`, with everything that must agree.

width    hidden size d, heads of the same width (d / head of them), key heads in proportion
MLP      in proportion to the hidden size, in whole sixteens
depth    per-layer settings (attention kinds, ...) of evenly spread layers
head     tied to the embedding, which is most of a small model
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graftlab.errors import ConfigError, ModelError

SHARE = 4
"""By default a quarter as wide and a quarter as deep: about a 64th of the decoder's weights."""
NARROWEST = 16
"""The narrowest head that is made to fit a hidden size."""
FEED_FORWARD = ("intermediate_size", "moe_intermediate_size", "shared_expert_intermediate_size")
NEEDED = ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size")


def shrink(config: Mapping[str, Any], *, layers: int | None, hidden: int | None) -> dict[str, Any]:
    """`config` for `layers` decoder layers of width `hidden`; None takes a quarter of its own.

    Raises ModelError where it lacks a number, ConfigError for a size that cannot be.
    """
    missing = [key for key in NEEDED if not config.get(key)]
    if missing:
        raise ModelError(f"its config.json has no {', '.join(missing)}")
    width, depth = int(config["hidden_size"]), int(config["num_hidden_layers"])
    heads = int(config["num_attention_heads"])
    head = int(config.get("head_dim") or width // heads)
    new_depth = layers or max(1, round(depth / SHARE))
    new_width = hidden or max(head, round(width / SHARE / head) * head)
    new_head = _head(new_width, head)
    new_heads = new_width // new_head
    key_heads = int(config.get("num_key_value_heads") or heads)
    small = {key: _per_layer(value, depth, new_depth) for key, value in config.items()}
    small |= {
        "hidden_size": new_width,
        "num_hidden_layers": new_depth,
        "num_attention_heads": new_heads,
        "num_key_value_heads": _divisor(new_heads, max(1, round(new_heads * key_heads / heads))),
        "tie_word_embeddings": True,
        "dtype": "float32",
    }
    small |= {
        key: max(16, round(config[key] * new_width / width / 16) * 16)
        for key in FEED_FORWARD
        if config.get(key)
    }
    if config.get("head_dim"):
        small["head_dim"] = new_head
    if config.get("query_pre_attn_scalar") == head:
        small["query_pre_attn_scalar"] = new_head
    if config.get("max_window_layers"):
        small["max_window_layers"] = min(int(config["max_window_layers"]), new_depth)
    if isinstance(config.get("mlp_only_layers"), list):
        small["mlp_only_layers"] = [n for n in config["mlp_only_layers"] if n < new_depth]
    for key in ("_name_or_path", "transformers_version", "torch_dtype"):
        small.pop(key, None)
    return small


def _head(width: int, head: int) -> int:
    """The widest even head, no wider than the teacher's, that divides the hidden size."""
    fits = [size for size in range(2, min(head, width) + 1, 2) if width % size == 0]
    if not fits or fits[-1] < min(NARROWEST, head):
        near = max(head, round(width / head) * head)
        raise ConfigError(
            f"model.hidden={width} holds no whole number of heads of {NARROWEST} to {head}: "
            f"take a multiple of {head}, such as {near}."
        )
    return fits[-1]


def _divisor(number: int, most: int) -> int:
    """The largest divisor of `number` that is at most `most`."""
    return next(size for size in range(most, 0, -1) if number % size == 0)


def _per_layer(value: Any, depth: int, new_depth: int) -> Any:
    """A list with an entry for each layer, for fewer layers (or more: the last kinds repeat)."""
    if not isinstance(value, list) or len(value) != depth or depth == 1:
        return value
    return [value[number * depth // new_depth] for number in range(new_depth)]
