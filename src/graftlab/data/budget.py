"""The token budget: how long documents are, how they pack, and what packing saves.

Pure arithmetic over lengths: no tokenizer, no weights, so a plan can be made from counts alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Spread:
    """Tokens per document of one part of it."""

    part: str
    median: float
    mean: float
    p75: float
    p95: float
    max: int


@dataclass(frozen=True, slots=True)
class Budget:
    """What one epoch costs; tokens are computed positions, without the one after the last label."""

    documents: int
    over_limit: int  # documents longer than max_length, left out of everything below
    tokens: int
    trained_tokens: int
    max_length: int
    rows: int
    density: float  # share of rows * max_length that holds a token, 0..1
    documents_per_row: float
    effective_batch: float  # documents per optimizer step
    tokens_per_step: float
    trained_tokens_per_step: float
    steps_per_epoch: int
    gain_over_max_length: float  # positions with every document padded to max_length, over tokens
    gain_over_batch: float  # positions padded to the longest of each batch, over tokens


def spreads(parts: Mapping[str, np.ndarray]) -> list[Spread]:
    """Statistics of each part that any document has, and of the total.

    `parts` are counts of tokens, (n,) each.
    """
    counted = {name: counts for name, counts in parts.items() if counts.any()}
    if not counted:
        return []
    counted["total"] = np.sum([*parts.values()], axis=0)
    return [_spread(name, counts) for name, counts in counted.items()]


def _spread(name: str, counts: np.ndarray) -> Spread:
    median, p75, p95 = (float(value) for value in np.quantile(counts, [0.5, 0.75, 0.95]))
    return Spread(name, median, float(counts.mean()), p75, p95, int(counts.max()))


def budget(
    lengths: Sequence[int] | np.ndarray,
    num_labels: Sequence[int] | np.ndarray,
    rows: Sequence[Sequence[int]],
    *,
    max_length: int,
    batch_size: int = 1,
    accumulate: int = 1,
    over_limit: int = 0,
) -> Budget:
    """The budget of documents packed into `rows` (indices into `lengths`, all within the limit).

    Both gains compare with the same documents per micro-batch, one to a row and padded: a packed
    row costs its tokens only, since micro-batches are laid end to end.
    """
    sizes = np.asarray(lengths, np.int64)
    tokens, trained = int(sizes.sum()), int(np.asarray(num_labels, np.int64).sum())
    per_row = len(sizes) / len(rows) if rows else 0.0
    steps = math.ceil(math.ceil(len(rows) / batch_size) / accumulate)
    in_batch = padded_in_batches(sizes, max(1, round(batch_size * per_row)))
    return Budget(
        documents=len(sizes) + over_limit,
        over_limit=over_limit,
        tokens=tokens,
        trained_tokens=trained,
        max_length=max_length,
        rows=len(rows),
        density=tokens / (len(rows) * max_length) if rows else 0.0,
        documents_per_row=per_row,
        effective_batch=len(sizes) / steps if steps else 0.0,
        tokens_per_step=tokens / steps if steps else 0.0,
        trained_tokens_per_step=trained / steps if steps else 0.0,
        steps_per_epoch=steps,
        gain_over_max_length=len(sizes) * max_length / tokens if tokens else 1.0,
        gain_over_batch=in_batch / tokens if tokens else 1.0,
    )


def padded_in_batches(lengths: np.ndarray, documents: int) -> int:
    """Positions when documents are batched in the given order, padded to each batch's longest."""
    groups = [lengths[i : i + documents] for i in range(0, len(lengths), documents)]
    return sum(len(group) * int(group.max()) for group in groups)
