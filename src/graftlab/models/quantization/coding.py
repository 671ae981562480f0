"""Schemes that make codes, not only read them: `quantization=nf4|int8`."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from graftlab.models.quantization.weight import QuantizedWeight, Scheme


class Coding(Scheme):
    """A scheme with its encoder. Equal weights give equal codes on every device and machine."""

    @abstractmethod
    def allocate(self, shape: Sequence[int], device: torch.device) -> list[Tensor]:
        """Room for the parts of a weight (out, in)."""

    @abstractmethod
    def encode(self, weight: Tensor, parts: Sequence[Tensor]) -> None:
        """Write the codes and scales of `weight` (out, in), fp32, into `parts`."""

    def quantise(
        self, weight: Tensor, dtype: torch.dtype, *, parts: Sequence[Tensor] | None = None
    ) -> QuantizedWeight:
        """`weight` (out, in), fp32, as codes, in `parts` where given; they widen to `dtype`."""
        parts = self.allocate(weight.shape, weight.device) if parts is None else parts
        self.encode(weight, parts)
        return QuantizedWeight(self, parts, weight.shape, dtype)
