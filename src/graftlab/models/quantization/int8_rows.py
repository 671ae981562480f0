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

from graftlab.models.quantization.coding import Coding
from graftlab.models.quantization.weight import in_pieces

LARGEST = 127
SMALLEST = torch.finfo(torch.float32).tiny


@dataclass(frozen=True)
class Int8Rows(Coding):
    """Parts: codes (out, in) int8, scales (out,) fp32."""

    def allocate(self, shape: Sequence[int], device: torch.device) -> list[Tensor]:
        codes = torch.empty(*shape, dtype=torch.int8, device=device)
        return [codes, torch.empty(shape[0], dtype=torch.float32, device=device)]

    def encode(self, weight: Tensor, parts: Sequence[Tensor]) -> None:
        codes, scales = parts
        for rows in in_pieces(weight, weight.shape[1]):
            largest = weight[rows].abs().amax(1)
            # A row of zeros has no scale; its codes are zeros, whatever they are multiplied with.
            factors = LARGEST / largest.clamp(min=LARGEST * SMALLEST)
            codes[rows] = (weight[rows] * factors[:, None]).round_().clamp_(-LARGEST, LARGEST)
            scales[rows] = largest / LARGEST

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
