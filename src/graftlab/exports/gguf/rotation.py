"""How positions are turned, in a GGUF file's words and tensors, as `models/gguf/rope.py` reads."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np

from graftlab.errors import ModelError
from graftlab.models.gguf.rope import FACTORS, LLAMA3_LENGTH, LONG, SHORT, llama3_factors

YARN = {"beta_fast": 32.0, "beta_slow": 1.0}
"""What llama.cpp takes where a file does not say it, and transformers too."""
LAYERS = ("full_attention", "sliding_attention")
"""Kinds of layers that may turn positions differently."""
Tensors = dict[str, np.ndarray]


def rope_metadata(config: Any, head_dim: int, name: str) -> tuple[dict[str, Any], Tensors]:
    """Keys under the architecture, and tensors. Raises ModelError for an unknown kind."""
    rope = settled(config).rope_parameters
    full = rope.get("full_attention", rope)
    kind, theta = full["rope_type"], float(full["rope_theta"])
    width = int(head_dim * full.get("partial_rotary_factor", 1.0))
    told: dict[str, Any] = {"rope.freq_base": theta, "rope.dimension_count": width}
    if (sliding := rope.get("sliding_attention")) is not None:
        told["rope.freq_base_swa"] = float(sliding["rope_theta"])
    length = full.get("original_max_position_embeddings")
    if kind == "default":
        return told, {}
    if kind == "linear":
        scaling = {"type": kind, "factor": float(full["factor"])}
        return told | _scaling(scaling), {}
    if kind == "yarn":
        scaling = {"type": kind, "factor": float(full["factor"])}
        return told | _scaling(scaling | {"original_context_length": length}), {}
    if kind == "longrope":
        scaling = {"attn_factor": full["attention_factor"], "original_context_length": length}
        tensors = {SHORT: full["short_factor"], LONG: full["long_factor"]}
        return told | _scaling(scaling), {n: np.array(v, np.float32) for n, v in tensors.items()}
    if kind == "llama3":
        factors = llama3_factors(theta, width, factor=full["factor"], length=length)
        usual = length == LLAMA3_LENGTH
        scaling = {} if usual else {"original_context_length": length}
        return told | _scaling(scaling), {FACTORS: factors.astype(np.float32)}
    raise ModelError(
        f"{name} turns positions by {kind}, which is not written as GGUF; default, linear, yarn, "
        "longrope and llama3 are. target=merged writes a folder."
    )


def settled(config: Any) -> Any:
    """The config with what transformers itself adds to `rope_parameters` written out or left out,
    so that two that say the same are equal."""
    config = copy.deepcopy(config)
    rope = config.rope_parameters
    for one in [rope[kind] for kind in LAYERS if kind in rope] or [rope]:
        for key in [key for key, value in one.items() if value is None]:
            del one[key]
        if one.get("partial_rotary_factor") == 1:
            del one["partial_rotary_factor"]
        if one["rope_type"] == "yarn":
            usual = {**YARN, "attention_factor": 0.1 * math.log(one["factor"]) + 1}
            for key, value in usual.items():
                if key in one and math.isclose(one[key], value, rel_tol=1e-6):
                    del one[key]
        if one["rope_type"] == "longrope":
            length = one.setdefault(
                "original_max_position_embeddings", config.original_max_position_embeddings
            )
            factor = one.pop("factor", None) or config.max_position_embeddings / length
            grown = math.sqrt(1 + math.log(factor) / math.log(length)) if factor > 1 else 1.0
            one.setdefault("attention_factor", grown)
    return config


def _scaling(told: dict[str, Any]) -> dict[str, Any]:
    return {f"rope.scaling.{key}": value for key, value in told.items()}
