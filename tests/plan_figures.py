"""A base, a card and a workload small enough to be worked out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np

from graftlab.machine import Machine, Rates
from graftlab.packing.plan import Packing
from graftlab.planning.shape import Reads, Shape
from graftlab.planning.workload import Documents, StepSettings, Workload, lay_out

MIB, GIB = 2**20, 2**30

SHAPE = Shape(
    name="a base",
    source="test",
    parameters=10_000_000,
    trainable=500_000,
    layers=4,
    hidden=256,
    heads=4,
    key_heads=2,
    head_dim=64,
    feed_forward=704,
    vocab=8000,
    linear=3_000_000,
    qk_norm=False,
    reads=Reads(inputs=8960, distinct=4864, outputs=8704, count=28),
    rank=16,
)
"""Four layers of seven adapted projections: 4 x 256 + 2 x 256 + 704 = 2,240 read by each; without
repeats, and without what attention keeps: 256 + 256 + 704 = 1,216."""

GPU = Machine(
    title="a card",
    kind="cuda",
    memory=10,
    usable=8,
    achieved=Rates(bf16=100),
    watts=500,
    price=3,
)


def a_load(**schedule: Any) -> Workload:
    """Documents of 600, 400, 300 and 200 tokens, a quarter trained, in two rows of 1,000 at most:
    600 + 400 and 300 + 200.
    """
    lengths = np.array([600, 400, 300, 200])
    given = {"batch_size": 1, "accumulate": 1, "epochs": 3, "max_steps": None, **schedule}
    valid = given.pop("valid_tokens", 0)
    documents = Documents(lengths, lengths // 4, "test")
    return lay_out(documents, Packing(max_length=1000), StepSettings(**given), valid_tokens=valid)
