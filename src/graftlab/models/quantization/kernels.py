"""Kernels of bitsandbytes (MIT), where it is installed and has one: the same numbers, sooner."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

from graftlab.models.quantization.weight import is_traced


def dequantise_4bit(codes: Tensor, scales: Tensor, block: int, dtype: torch.dtype) -> Tensor | None:
    """The values (2 x codes,) of nf4 blocks; None where torch's own operations do it.

    Taken on CUDA alone: on a processor the look-up in `nf4_blocks.py` costs a hundredth of the
    product that it is for.
    """
    if codes.device.type != "cuda" or is_traced(codes) or (operations := _operations()) is None:
        return None
    shape = (2 * codes.numel(),)
    values: Tensor = operations.dequantize_4bit.default(codes, scales, block, "nf4", shape, dtype)
    return values


@cache
def _operations() -> Any:
    try:
        import bitsandbytes  # noqa: F401  # registers them
    except ImportError:
        return None
    return torch.ops.bitsandbytes
