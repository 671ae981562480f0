"""Rows of documents into flat micro-batches, and the divisor of every optimizer step.

rows       [A B]  [C]  [D E]  [F]          from `packing/plan.py`
batches    A B C | D E F                   batch_size=2: two rows laid end to end, no padding
step       \\_______________/               accumulate=2: step_units = labels of A..F

A document of several segments is one of these letters: its branches are never apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from graftlab.types import IGNORE, PLAIN, Batch, Tokens

if TYPE_CHECKING:
    from graftlab.text.encode import TokenSet


def make_batch(
    tokens: TokenSet,
    documents: Sequence[int],
    *,
    step_units: float,
    micro_step: int = 0,
    ends_step: bool = True,
) -> Batch:
    """Lay documents end to end: all tensors (1, N), boundaries (segments + 1,).

    Without documents the batch is a single unlabelled position, so that a process that has no rows
    left still takes part in the step and contributes zero.
    """
    pairs = [tokens[index] for index in documents]
    tables = [_table(pair) for pair in pairs] or [_PLAIN_TOKEN]
    boundaries = np.concatenate([[0], np.cumsum(np.concatenate(tables)[:, 0])]).astype(np.int32)
    positions = np.concatenate([_positions(table) for table in tables])
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
        **_segments(tokens, tables),
        weights=_weights(tokens, pairs),
        reference=_reference(tokens, documents),
    )


_PLAIN_TOKEN = np.array([[1, -1, PLAIN]], np.int32)


def _table(document: Tokens) -> np.ndarray:
    if document.segments is None:
        return np.array([[len(document), -1, PLAIN]], np.int32)
    return document.segments


def _positions(table: np.ndarray) -> np.ndarray:
    """Positions of a document's tokens: each segment goes on where its parent ends."""
    ends: list[int] = []
    pieces = []
    for length, parent, _ in table.tolist():
        start = ends[parent] if parent >= 0 else 0
        pieces.append(np.arange(start, start + length))
        ends.append(start + length)
    return np.concatenate(pieces)


def _segments(tokens: TokenSet, tables: Sequence[np.ndarray]) -> dict[str, Any]:
    """The tables of a batch's segments; none for a set of plain documents."""
    if tokens.segments is None:
        return {}
    counts = [len(table) for table in tables]
    flat = np.concatenate(tables)
    firsts = np.repeat(np.cumsum([0, *counts[:-1]]), counts)
    found = {
        "owners": np.repeat(np.arange(len(tables), dtype=np.int32), counts),
        "kinds": flat[:, 2].astype(np.int8),
    }
    if tokens.branched:  # also where this batch has no branches: compiled layers see one kind
        found["parents"] = np.where(flat[:, 1] < 0, -1, flat[:, 1] + firsts).astype(np.int32)
    return {name: torch.from_numpy(array) for name, array in found.items()}


def _weights(tokens: TokenSet, pairs: Sequence[Tokens]) -> torch.Tensor | None:
    if tokens.weights is None:
        return None
    parts = [pair.weights for pair in pairs if pair.weights is not None]
    return torch.from_numpy(np.concatenate([*parts] or [np.ones(1, np.float32)]))[None]


def _reference(tokens: TokenSet, documents: Sequence[int]) -> torch.Tensor | None:
    if tokens.reference is None:
        return None
    parts = [tokens.reference[tokens.segments_of(index)] for index in documents]
    return torch.from_numpy(np.concatenate(parts or [np.zeros(1, np.float32)]))
