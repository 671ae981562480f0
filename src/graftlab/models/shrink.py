"""A smaller model of the same architecture: its `config.json`, with everything that must agree,
and fresh weights as the architecture draws them.

width    hidden size d, heads of the same width (d / head of them), key heads in proportion
MLP      in proportion to the hidden size, in whole sixteens
depth    per-layer settings (attention kinds, ...) of evenly spread layers
head     tied to the embedding, which is most of a small model
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from graftlab.errors import ConfigError, ModelError
from graftlab.models.weights import read_json

SHARE = 4
"""By default a quarter as wide and a quarter as deep: about a 64th of the decoder's weights."""
NARROWEST = 16
"""The narrowest head that is made to fit a hidden size."""
FEED_FORWARD = ("intermediate_size", "moe_intermediate_size", "shared_expert_intermediate_size")
NEEDED = ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size")


def plan(folder: Path, *, layers: int | None, hidden: int | None) -> dict[str, Any]:
    """`shrink` of the config.json in `folder`. Raises ModelError or ConfigError."""
    content = read_json(folder / "config.json")
    if "auto_map" in content:
        raise ModelError(
            "a draft is made of architectures that transformers knows; this one brings code of its "
            "own. Give a small model with model=hf model.path=DIR."
        )
    return shrink(content, layers=layers, hidden=hidden)


def build(config: Mapping[str, Any], folder: Path, *, seed: int, pattern: Path | None) -> None:
    """A model of this config in `folder`, its weights drawn from the seed.

    With `pattern`, a model folder, its embedding is that one's on the principal directions. Raises
    ModelError.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from graftlab.models.project import project_embedding

    fields = {key: value for key, value in config.items() if key != "model_type"}
    try:
        made = AutoConfig.for_model(config["model_type"], **fields)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = AutoModelForCausalLM.from_config(
                made, dtype=torch.float32, trust_remote_code=False
            )
    except (ValueError, KeyError, TypeError, ImportError, RuntimeError) as error:
        raise ModelError(f"no draft of this shape can be made: {error}") from error
    if pattern is not None:
        project_embedding(model, pattern)
    model.save_pretrained(folder)


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
