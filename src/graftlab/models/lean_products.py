"""Products with the weights of a decoder, as decoding computes them: in a copy, or as they lie.

    folded    x (W + s B A)       in copies: an adapter is added as PEFT merges it, matrices of one
                                  input stand side by side, and all lie as (in, out)
    apart     x W + s (x A) B     nothing is copied: 16-bit weights, codes, where there is no room

One row times a matrix takes half the time where the matrix lies as (in, out), and a few rows take a
third less where none is wider than 4,096 columns. The model's own weights are never written to.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

WIDEST = 4096
"""Columns of a panel, at most."""


@dataclass(frozen=True, slots=True)
class Place:
    """A linear layer or embedding, with the LoRA layer around it if there is one."""

    weight: Tensor
    """(out, in)"""
    bias: Tensor | None
    lora: Any
    active: tuple[str, ...]
    """The adapters of that layer that are on."""

    def tensors(self) -> Iterator[Tensor]:
        """All that its product depends on, beside scales."""
        yield self.weight
        if self.bias is not None:
            yield self.bias
        for name in self.active:
            yield self.lora.lora_A[name].weight
            yield self.lora.lora_B[name].weight
            if name in self.lora.lora_magnitude_vector:
                yield self.lora.lora_magnitude_vector[name].weight

    @property
    def is_foldable(self) -> bool:
        """Whether it is an ordinary matrix in fp32, to which nothing is lost by adding."""
        return self.weight.dtype == torch.float32 and type(self.weight.data) is Tensor

    @property
    def has_variants(self) -> bool:
        """Whether an adapter is more than a product of two matrices (DoRA)."""
        return any(name in self.lora.lora_variant for name in self.active)

    def folded(self) -> Tensor:
        """The weight with the adapter, as PEFT merges it but in one pass over it."""
        weight, lora = self.weight.detach(), self.lora
        for name in self.active:
            if name in lora.lora_variant:
                weight = lora.lora_variant[name].merge_safe(lora, name, weight.clone())
                lora._cache_pop(f"{name}-weight_norm")  # kept by PEFT for merging back
                continue
            down, up = (half[name].weight.to(weight.dtype) for half in (lora.lora_A, lora.lora_B))
            weight = torch.addmm(weight, up, down, alpha=lora.scaling[name])
        return weight

    def updates(self) -> Iterator[tuple[Tensor, Tensor]]:
        """(A, s B) of every adapter that is on."""
        for name in self.active:
            up = self.lora.lora_B[name].weight.detach() * self.lora.scaling[name]
            yield self.lora.lora_A[name].weight.detach(), up


class Product(ABC):
    """Rows times matrices that share their input; the outputs stand side by side."""

    @abstractmethod
    def __call__(self, rows: Tensor) -> Tensor:
        """(N, in) -> (N, out)."""

    def onto(self, residual: Tensor, rows: Tensor) -> Tensor:
        """`residual` (N, out) and the product."""
        return residual + self(rows)


class Folded(Product):
    """In copies, (in, out) each."""

    def __init__(self, places: Sequence[Place]) -> None:
        weights = [place.folded() for place in places]
        whole = weights[0] if len(weights) == 1 else torch.cat(weights)
        parts = whole.tensor_split(-(-len(whole) // WIDEST))
        self.panels = [part.t().contiguous() for part in parts]
        found = [
            place.weight.new_zeros(len(place.weight)) if place.bias is None else place.bias
            for place in places
        ]
        self.bias = torch.cat(found) if any(place.bias is not None for place in places) else None

    def __call__(self, rows: Tensor) -> Tensor:
        outs = [rows @ panel for panel in self.panels]
        out = outs[0] if len(outs) == 1 else torch.cat(outs, dim=1)
        return out if self.bias is None else out.add_(self.bias)

    def onto(self, residual: Tensor, rows: Tensor) -> Tensor:
        if len(self.panels) == 1 and self.bias is None:
            return torch.addmm(residual, rows, self.panels[0])
        return self(rows).add_(residual)


class Apart(Product):
    """With the weights as they lie; adapters of all of them share one product with their input."""

    def __init__(self, places: Sequence[Place], dtype: torch.dtype) -> None:
        """`dtype` is that of the products."""
        self._parts = [(place.weight.detach(), place.bias) for place in places]
        downs: list[Tensor] = []
        self._ups: list[tuple[int, slice, Tensor]] = []
        start = 0
        for number, place in enumerate(places):
            for down, up in place.updates():
                ranks = slice(start, start + len(down))
                self._ups.append((number, ranks, up.to(dtype)))
                downs.append(down.to(dtype))
                start = ranks.stop
        self._down = torch.cat(downs) if downs else None

    def __call__(self, rows: Tensor) -> Tensor:
        outs = [functional.linear(rows, weight, bias) for weight, bias in self._parts]
        if self._down is not None:
            low = functional.linear(rows, self._down)
            for number, ranks, up in self._ups:
                outs[number] = outs[number] + functional.linear(low[:, ranks], up)
        return outs[0] if len(outs) == 1 else torch.cat(outs, dim=1)


class Norm:
    """A root mean square norm with its weight."""

    def __init__(self, module: Any) -> None:
        self.weight: Tensor = module.weight.detach()
        self.epsilon: float = module.variance_epsilon

    def __call__(self, rows: Tensor) -> Tensor:
        return functional.rms_norm(rows, self.weight.shape, self.weight, self.epsilon)
