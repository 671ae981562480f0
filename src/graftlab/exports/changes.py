"""What an adapter makes of one tensor of its base: computed in fp32, and rounded once.

LowRank     W + s * B @ A (arXiv 2106.09685); with DoRA each row at its magnitude (2402.09353)
Shifted     a bias with the one of LoRA's B
Replaced    a tensor that was trained in full
Rows        rows of the embedding that were trained

Between the base (strength 0) and the adapter as trained (1), LoRA's update is multiplied by the
strength and all else is interpolated, as `Adapter.scaled` does.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

BLOCK = 2**24
"""Values of a matrix in fp32 at a time: an embedding as a whole may be gigabytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change(ABC):
    """One change; tensors of the adapter on the CPU."""

    strength: float = 1.0

    @abstractmethod
    def apply(self, weight: Tensor, dtype: torch.dtype) -> Tensor:
        """The changed tensor, in the shape of `weight`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LowRank(Change):
    """LoRA on a matrix (out, in), or (in, out) with `transposed`."""

    lora_a: Tensor
    """(rank, in)"""
    lora_b: Tensor
    """(out, rank)"""
    scale: float
    magnitude: Tensor | None = None
    """(out,), of DoRA."""
    transposed: bool = False

    def apply(self, weight: Tensor, dtype: torch.dtype) -> Tensor:
        merged = torch.empty_like(weight, dtype=dtype)
        rows, places = (weight.T, merged.T) if self.transposed else (weight, merged)
        size = max(1, BLOCK // rows.shape[1])
        for start in range(0, len(rows), size):
            block = slice(start, start + size)
            places[block] = self._block(_at_least_fp32(rows[block]), block)
        return merged

    def _block(self, rows: Tensor, block: slice) -> Tensor:
        lora_a, lora_b = self.lora_a.to(rows.dtype), self.lora_b[block].to(rows.dtype)
        changed = rows + (lora_b @ lora_a) * (self.scale * self.strength)
        if self.magnitude is None:
            return changed
        magnitude = self.magnitude[block].to(rows.dtype)
        if self.strength != 1:
            magnitude = torch.lerp(_norms(rows), magnitude, self.strength)
        return (magnitude / _norms(changed))[:, None] * changed


@dataclass(frozen=True, slots=True, kw_only=True)
class Shifted(Change):
    """A bias (out,) to which the one of LoRA's B is added."""

    bias: Tensor
    scale: float

    def apply(self, weight: Tensor, dtype: torch.dtype) -> Tensor:
        start = _at_least_fp32(weight)
        return (start + self.bias.to(start.dtype) * (self.scale * self.strength)).to(dtype)


@dataclass(frozen=True, slots=True, kw_only=True)
class Replaced(Change):
    """A tensor of a module that was trained in full."""

    trained: Tensor

    def apply(self, weight: Tensor, dtype: torch.dtype) -> Tensor:
        if self.strength == 1:
            return self.trained.to(dtype)
        start = _at_least_fp32(weight)
        return torch.lerp(start, self.trained.to(start.dtype), self.strength).to(dtype)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows(Change):
    """Rows of an embedding (V, D), or of a head tied to it."""

    indices: tuple[int, ...]
    trained: Tensor
    """(len(indices), D)"""

    def apply(self, weight: Tensor, dtype: torch.dtype) -> Tensor:
        changed = weight.to(dtype, copy=True)
        places = list(self.indices)
        start = _at_least_fp32(weight[places])
        rows = torch.lerp(start, self.trained.to(start.dtype), self.strength)
        changed[places] = rows.to(dtype)
        return changed


def _norms(rows: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.norm(rows, dim=1)
    return norms


def _at_least_fp32(weight: Tensor) -> Tensor:
    return weight.to(torch.promote_types(weight.dtype, torch.float32))
