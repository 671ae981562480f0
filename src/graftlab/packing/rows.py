"""Rows of documents into flat micro-batches, and the divisor of every optimizer step.

rows       [A B]  [C]  [D E]  [F]          from `packing/plan.py`
batches    A B C | D E F                   batch_size=2: two rows laid end to end, no padding
step       \\_______________/               accumulate=2: step_units = labels of A..F
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from graftlab.types import IGNORE, Batch

if TYPE_CHECKING:
    from graftlab.text.encode import TokenSet


def make_batch(
    tokens: TokenSet,
    documents: Sequence[int],
    *,
    step_units: int,
    micro_step: int = 0,
    ends_step: bool = True,
) -> Batch:
    """Lay documents end to end: all tensors (1, N), boundaries (documents + 1,).

    Without documents the batch is a single unlabelled position, so that a process that has no rows
    left still takes part in the step and contributes zero.
    """
    pairs = [tokens[index] for index in documents]
    lengths = [len(pair) for pair in pairs] or [1]
    boundaries = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    positions = np.concatenate([np.arange(length) for length in lengths])
    input_ids = np.concatenate([pair.input_ids for pair in pairs]) if pairs else np.zeros(1)
    labels = np.concatenate([pair.labels for pair in pairs]) if pairs else np.full(1, IGNORE)
    return Batch(
        input_ids=torch.from_numpy(input_ids.astype(np.int64))[None],
        labels=torch.from_numpy(labels.astype(np.int64))[None],
        positions=torch.from_numpy(positions.astype(np.int64))[None],
        boundaries=torch.from_numpy(boundaries),
        step_units=step_units,
        micro_step=micro_step,
        ends_step=ends_step,
    )
