"""Eight-bit rows: codes and scales from a weight, and its values from them.

    weight (out, in)  ~  codes (out, in) int8, -127 .. 127  x  scales (out,) fp32, max |row| / 127

The codes are those of bitsandbytes' LLM.int8 (arXiv 2208.07339), which multiplies otherwise: here
the inputs stay as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from graftlab.models.quantization.weight import QuantizedWeight, Scheme, in_pieces

LARGEST = 127


@dataclass(frozen=True)
class Int8Rows(Scheme):
    """Parts: codes (out, in) int8, scales (out,) fp32."""

    def quantise(self, weight: Tensor, dtype: torch.dtype) -> QuantizedWeight:
        """`weight` (out, in), in fp32, as codes that are widened to `dtype`."""
        largest = weight.abs().amax(1)
        # A row of zeros has no scale; its codes are zeros, whatever they are multiplied with.
        factors = LARGEST / largest.clamp(min=torch.finfo(torch.float32).tiny * LARGEST)
        codes = torch.empty_like(weight, dtype=torch.int8)
        for rows in in_pieces(weight, weight.shape[1]):
            codes[rows] = (weight[rows] * factors[rows, None]).round_().clamp_(-LARGEST, LARGEST)
        return QuantizedWeight(self, [codes, largest / LARGEST], weight.shape, dtype)

    def widen(self, parts: Sequence[Tensor], shape: torch.Size, dtype: torch.dtype) -> Tensor:
        codes, scales = parts
        pieces = in_pieces(codes, shape[1])
        if len(pieces) == 1 or dtype == torch.float32:
            return _values(codes, scales).to(dtype)
        wide = torch.empty(shape, dtype=dtype, device=codes.device)
        for rows in pieces:
            wide[rows] = _values(codes[rows], scales[rows])
        return wide


def _values(codes: Tensor, scales: Tensor) -> Tensor:
    """In fp32, in which no more than the values themselves is kept."""
    return codes.float().mul_(scales[:, None])
