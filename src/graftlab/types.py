"""The nouns that travel through graftlab: conversations, encoded documents, batches.

Shape legend used across the package: B rows, T positions in a row, N = B * T positions of a flat
micro-batch, n labelled positions, D hidden size, V vocabulary size.

A micro-batch is *flat*: its packed rows are laid end to end in one row of N positions, without any
padding, and every document starts with a zero in `positions`:

    documents      A A A A   B B B   C C
    input_ids      a a a a b b b c c         (1, N)
    positions      0 1 2 3 0 1 2 0 1         a zero starts a document
    labels         - a a e - b e - e         the token to predict *after* this one; "-" is IGNORE

Labels are shifted once, in `text/encode.py`, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import torch

IGNORE = -100
"""Label of a position that is not trained (PyTorch's own default for cross-entropy)."""

ROLES = ("system", "user", "assistant")


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation.

    `response_format` says what JSON the answer to this turn must be, for templates that show it:
    {"type": "json_schema", "json_schema": {"name"?: ..., "description"?: ..., "schema": {...}}}.
    """

    role: str
    content: str
    response_format: dict[str, Any] | None = field(default=None, hash=False)

    def as_dict(self) -> dict[str, Any]:
        turn: dict[str, Any] = {"role": self.role, "content": self.content}
        if self.response_format is not None:
            turn["response_format"] = self.response_format
        return turn


@dataclass(frozen=True, slots=True)
class Conversation:
    """A checked conversation: optional system turn, then user and assistant in turn.

    `source` and `line` say where it was read (1-based), and `index` which row of a JSON array it is
    (1-based; 0 in a file of lines), so that every later complaint can point at it.
    """

    messages: tuple[Message, ...]
    source: str = "<memory>"
    line: int = 0
    tools: tuple[dict[str, Any], ...] = field(default=())
    index: int = 0

    @property
    def where(self) -> str:
        return place_of(self.source, self.line, self.index)

    def without_last_answer(self) -> Conversation:
        """The same conversation up to the last user turn: what a model is asked."""
        messages = self.messages
        if messages and messages[-1].role == "assistant":
            messages = messages[:-1]
        return replace(self, messages=messages)


def place_of(source: str, line: int, index: int = 0) -> str:
    """Where a row stands: FILE:LINE, and which row of a JSON array it is."""
    return f"{source}:{line} (row {index})" if index else f"{source}:{line}"


@dataclass(frozen=True, slots=True)
class Tokens:
    """One encoded document, already shifted: `labels[t]` is predicted from `input_ids[: t + 1]`.

    Both arrays are int32 of shape (T,); positions are 0..T-1. Nothing follows the last label: later
    tokens cannot change the loss of a causal model, so they are not computed.
    """

    input_ids: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.input_ids)


@dataclass(slots=True)
class Batch:
    """A flat micro-batch; see the module docstring for the layout.

    Contract: `positions` is the only place where document boundaries are said; `boundaries` holds
    the same as cumulative offsets [0, ..., N] (int32, on the CPU), derived once per batch.
    `step_units` is the number of labelled positions of the *whole* optimizer step this batch
    belongs to, over all its micro-batches and all ranks: the divisor of the summed loss.
    """

    input_ids: torch.Tensor  # (1, N) int64
    labels: torch.Tensor  # (1, N) int64
    positions: torch.Tensor  # (1, N) int64
    boundaries: torch.Tensor  # (documents + 1,) int32, CPU
    step_units: int
    micro_step: int = 0  # index of this micro-batch within its optimizer step
    ends_step: bool = True  # the optimizer steps after this micro-batch

    @property
    def num_tokens(self) -> int:
        return int(self.input_ids.numel())

    def documents(self) -> Iterator[slice]:
        """The documents' extents as slices into the N positions."""
        edges = self.boundaries.tolist()
        for start, end in pairwise(edges):
            yield slice(start, end)

    def to(self, device: torch.device | str) -> Batch:
        return replace(
            self,
            input_ids=self.input_ids.to(device, non_blocking=True),
            labels=self.labels.to(device, non_blocking=True),
            positions=self.positions.to(device, non_blocking=True),
        )
