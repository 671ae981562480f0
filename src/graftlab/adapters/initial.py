"""Initial adapter weights: a function of (seed, module name), the same on every device.

DoRA divides each row of W + scale * B @ A by its own norm, and some bases have rows that are zero:
0 / 0 at the first step. Such a row has no direction, so it is given one, by drawing its row of B;
its magnitude stays what it is, zero, so the row still adds nothing, here as in plain PEFT. Trained,
the magnitude grows from there like that of any other row.
"""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from graftlab.adapters.linear import NAME
from graftlab.adapters.peft_adapter import base_norms

if TYPE_CHECKING:
    from graftlab.adapters.peft_adapter import PeftAdapter


@torch.no_grad()
def initialise(adapter: PeftAdapter, kind: str, *, seed: int) -> None:
    """Draw A and B of every adapted module; all kinds start as the base.

    default: A Kaiming-uniform as `nn.Linear`, B zero; gaussian: A normal with std 1 / rank, B zero;
    orthogonal: neither is zero, but they live in orthogonal halves of the rank space; eva: as
    default, until `eva.fit_to_data` has read the data.
    """
    for name, layer in adapter.layers.items():
        generator = torch.Generator().manual_seed(name_seed(seed, name))
        lora_a, lora_b = layer.lora_A[NAME].weight, layer.lora_B[NAME].weight
        first, second = draw(kind, lora_a.shape, lora_b.shape, generator)
        lora_a.copy_(first)
        lora_b.copy_(second)
        if NAME in layer.lora_magnitude_vector:
            norms = base_norms(layer)
            _give_direction(lora_b, norms == 0, generator)
            magnitude = layer.lora_magnitude_vector[NAME].weight
            magnitude.data = norms.to(magnitude.dtype)


def _give_direction(lora_b: Tensor, empty: Tensor, generator: torch.Generator) -> None:
    """Draw the rows of B that `empty` marks, at the size of an ordinary row's norm."""
    if empty.any():
        drawn = torch.randn(lora_b.shape, generator=generator) / math.sqrt(lora_b.shape[1])
        lora_b[empty] = drawn[empty.cpu()].to(lora_b)


def name_seed(seed: int, name: str) -> int:
    """A generator seed of 63 bits from the seed and the module's name."""
    digest = hashlib.blake2b(f"{seed} {name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def draw(
    kind: str, shape_a: torch.Size, shape_b: torch.Size, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """A of shape (rank, in) and B of shape (out, rank), fp32 on the CPU."""
    lora_a, lora_b = torch.empty(shape_a), torch.zeros(shape_b)
    if kind == "gaussian":
        nn.init.normal_(lora_a, std=1 / shape_a[0], generator=generator)
    elif kind == "orthogonal":
        rank = shape_a[0]
        basis = torch.linalg.qr(torch.randn(rank, rank, generator=generator)).Q
        half_a, half_b = basis[: rank // 2], basis[rank // 2 :]
        # PEFT's scale of a tenth keeps the two random factors at the size of the default init.
        lora_a = half_a.T @ torch.randn(rank // 2, shape_a[1], generator=generator) / 10
        lora_b = torch.randn(shape_b[0], rank // 2, generator=generator) @ half_b / 10
    else:
        nn.init.kaiming_uniform_(lora_a, a=math.sqrt(5), generator=generator)
    return lora_a, lora_b
