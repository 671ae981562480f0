"""How positions are turned: from a GGUF file's words and tensors to transformers' rope_parameters.

rope.scaling.type   linear, yarn, longrope
rope_freqs.weight   of Llama 3.1: the factors that its kind of scaling comes to, one for each
                    frequency; the numbers behind them are found again and must give the same
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from graftlab.errors import ModelError
from graftlab.models.gguf.file import GGUFFile, map_file
from graftlab.models.gguf.metadata import Metadata

FACTORS = "rope_freqs.weight"
SHORT, LONG = "rope_factors_short.weight", "rope_factors_long.weight"
LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
LLAMA3_LENGTH = 8192
"""What Llama 3.1, 3.2 and 3.3 were trained on before they were stretched."""
USED = frozenset({FACTORS, SHORT, LONG})
"""Tensors that go into the config and not into the model."""


def rope_parameters(file: GGUFFile, *, head_dim: int, partial: bool = False) -> dict[str, Any]:
    """`rope_parameters` of transformers' config. Raises ModelError for a kind that is not known.

    `partial` says that the architecture may turn a part of each head alone.
    """
    told = Metadata(file)
    theta = told.number("rope.freq_base", 1e4)
    found: dict[str, Any] = {"rope_type": "default", "rope_theta": theta}
    if (width := told.integer("rope.dimension_count", head_dim)) != head_dim:
        if not partial or width > head_dim or width % 2:
            raise ModelError(
                f"{file.path}: {file.architecture}.rope.dimension_count is {width} for heads of "
                f"{head_dim}, and such a model turns whole heads. Take its folder in safetensors: "
                "model=hf model.path=DIR."
            )
        found["partial_rotary_factor"] = width / head_dim
    # llama.cpp's default too: early converters wrote the factor alone.
    kind = told.value("rope.scaling.type") if told.has("rope.scaling.type") else "linear"
    if SHORT in file.tensors:
        kind = "longrope"
    if FACTORS in file.tensors:
        return found | _llama3(file, theta, width)
    scale = told.number("rope.scale_linear", 1.0, least=0)
    factor = told.number("rope.scaling.factor", scale, least=0) or 1.0
    if kind == "none" or (kind == "linear" and factor == 1.0):
        return found
    if kind == "linear":
        return found | {"rope_type": "linear", "factor": factor}
    if kind == "yarn":
        return found | {"rope_type": "yarn", "factor": factor, **_original(told)}
    if kind == "longrope" and {SHORT, LONG} <= file.tensors.keys():
        return found | _longrope(file, told)
    raise ModelError(
        f"{file.path} turns positions by {kind}, which is not known here; none, linear, yarn, "
        "longrope and Llama 3.1's are."
    )


def _original(told: Metadata) -> dict[str, int]:
    length = told.integer("rope.scaling.original_context_length")
    return {"original_max_position_embeddings": length}


def _longrope(file: GGUFFile, told: Metadata) -> dict[str, Any]:
    found: dict[str, Any] = {
        "rope_type": "longrope",
        "short_factor": _numbers(file, SHORT).tolist(),
        "long_factor": _numbers(file, LONG).tolist(),
        **_original(told),
    }
    if told.has("rope.scaling.attn_factor"):
        found["attention_factor"] = told.number("rope.scaling.attn_factor")
    return found


def _llama3(file: GGUFFile, base: float, width: int) -> dict[str, Any]:
    """The scaling of Llama 3.1 (its model card) whose factors are those in the file."""
    factors = _numbers(file, FACTORS)
    told = Metadata(file)
    length = told.integer("rope.scaling.original_context_length", LLAMA3_LENGTH)
    found = {
        "rope_type": "llama3",
        "factor": float(factors.max()),
        **LLAMA3,
        "original_max_position_embeddings": length,
    }
    wanted = llama3_factors(base, width, factor=factors.max(), length=length)
    if factors.shape != wanted.shape or not np.allclose(factors, wanted, rtol=1e-3):
        raise ModelError(
            f"{file.path}: the factors in {FACTORS} are not those of Llama 3.1's scaling, the only "
            "one with such a tensor that is known here."
        )
    return found


def llama3_factors(base: float, width: int, *, factor: float, length: int) -> np.ndarray:
    """What each of the frequencies (width / 2,) is divided by in Llama 3.1's scaling."""
    wavelengths = 2 * math.pi * base ** (np.arange(0, width, 2) / width)
    low, high = LLAMA3.values()
    smooth = np.clip((length / wavelengths - low) / (high - low), 0, 1)
    factors: np.ndarray = 1 / ((1 - smooth) / factor + smooth)
    return factors


def _numbers(file: GGUFFile, name: str) -> np.ndarray:
    tensor = file.tensors[name]
    if tensor.dtype != "F32" or len(tensor.shape) != 1:
        raise ModelError(f"{file.path}: {name} is {tensor.dtype} {tensor.shape}, not F32 numbers.")
    data = map_file(tensor.file)[tensor.offset : tensor.offset + tensor.num_bytes]
    return data.view("<f4")
