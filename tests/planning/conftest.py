"""Workloads and shapes that the tests of planning start from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from graftlab.models.architecture import Architecture
from graftlab.packing.plan import Packing
from graftlab.planning.shape import Adapted, Shape, measure
from graftlab.planning.workload import Documents, StepSettings, Workload, lay_out

SMALL = Architecture(
    hidden_size=256, layers=4, heads=4, key_heads=2, feed_forward=704, vocab_size=8000, tied=True
)
PROJECTIONS = ("q", "k", "v", "o"), ("gate", "up", "down")


@pytest.fixture
def make_shape() -> Callable[..., Shape]:
    """`make_shape(rank=8)`: a small base with LoRA on all seven projections."""

    def shape(*, rank: int = 16, dora: bool = False, architecture: Architecture = SMALL) -> Shape:
        tensors = architecture.tensors()
        ends = tuple(f".{name}_proj.weight" for group in PROJECTIONS for name in group)
        names = [name.removesuffix(".weight") for name in tensors if name.endswith(ends)]
        adapted = Adapted(names, rank, dora)
        return measure(tensors, architecture.config(), adapted, name="small", source="test")

    return shape


@pytest.fixture
def make_load() -> Callable[..., Workload]:
    """`make_load(batch_size=4)`: 200 documents of uneven length, packed."""

    def load(
        *, max_length: int = 2048, documents: int = 200, valid_tokens: int = 0, **schedule: Any
    ) -> Workload:
        lengths = 50 + (np.arange(documents) * 37) % 400
        given = {"batch_size": 1, "accumulate": 1, "epochs": 2, "max_steps": None, **schedule}
        return lay_out(
            Documents(lengths, lengths // 3, "test"),
            Packing(max_length=max_length),
            StepSettings(**given),
            valid_tokens=valid_tokens,
        )

    return load
