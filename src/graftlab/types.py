"""The nouns that travel through graftlab: conversations, encoded documents, batches.

Shape legend used across the package: B rows, T positions in a row, N = B * T positions of a flat
micro-batch, n labelled positions, D hidden size, V vocabulary size.

A micro-batch is *flat*: its packed rows are laid end to end in one row of N positions, without any
padding, and every document starts with a zero in `positions`:

    documents      A A A A   B B B   C C
    input_ids      a a a a b b b c c         (1, N)
    positions      0 1 2 3 0 1 2 0 1         a zero starts a document
    labels         - a a e - b e - e         the token to predict *after* this one; "-" is IGNORE

A document may be a small tree of *segments*: a shared prompt, then branches that each continue it.

    segments       P P P P   C C C   R R     one document: a pair of answers
    positions      0 1 2 3   4 5 6   4 5     a branch goes on where its parent ends
    parents        -1        0       0       it sees its ancestors and itself, never a sister
    kinds          0         1       2       PLAIN, CHOSEN, REJECTED

What branches share ends before its last token: each begins with that one, whose label is the first
word of its own. Labels are shifted once, in `text/memmap_writer.py`, and nowhere else.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby, pairwise
from operator import itemgetter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import torch

IGNORE = -100
"""Label of a position that is not trained (PyTorch's own default for cross-entropy)."""

PLAIN, CHOSEN, REJECTED, ANCHOR = 0, 1, 2, 3
"""Kinds of segments: of no preference; the better (or a desirable) answer; the worse one; one that
is not learnt, on which the model is only to stay as it was."""

STATEFUL = frozenset({"conv", "linear_attention", "hybrid", "hybrid_sliding", "mamba", "recurrent"})
"""Kinds of layers that carry state along the row, as configs of transformers call them."""

PACKABLE = STATEFUL | {"full_attention", "sliding_attention", "dense", "sparse", "mlp", "moe"}
"""Kinds of layers whose attention, if they have any, is known to packed rows."""

ROLES = ("system", "user", "assistant", "tool")


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation.

    `response_format` says what JSON the answer to this turn must be, for templates that show it:
    {"type": "json_schema", "json_schema": {"name"?: ..., "description"?: ..., "schema": {...}}}.
    `tool_calls` are those of an assistant's turn, in OpenAI's form with arguments as an object:
    {"id"?: ..., "type": "function", "function": {"name": ..., "arguments": {...}}}. A turn of the
    role `tool` holds a result; `name` and `tool_call_id` link it to its call.
    """

    role: str
    content: str
    response_format: dict[str, Any] | None = field(default=None, hash=False)
    tool_calls: tuple[dict[str, Any], ...] = field(default=(), hash=False)
    reasoning: str | None = None
    """What an assistant thought before its answer, where it is not part of `content`."""
    weight: float = 1.0
    """Of an assistant's turn in the loss; 0 leaves it out."""
    name: str | None = None
    tool_call_id: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """The turn as chat templates read it; keys that say nothing are not there."""
        turn: dict[str, Any] = {"role": self.role, "content": self.content}
        if self.response_format is not None:
            turn["response_format"] = self.response_format
        if self.tool_calls:
            turn["tool_calls"] = list(self.tool_calls)
        more = {"name": self.name, "tool_call_id": self.tool_call_id}
        more["reasoning_content"] = self.reasoning
        return turn | {key: value for key, value in more.items() if value is not None}

    def as_row(self) -> dict[str, Any]:
        """The turn as data files hold it: with its weight."""
        return self.as_dict() | ({"weight": self.weight} if self.weight != 1 else {})

    @property
    def text(self) -> str:
        """What the turn says, for people: its content, then each call as one line of JSON."""
        calls = [json.dumps(call["function"], ensure_ascii=False) for call in self.tool_calls]
        return "\n".join([*([self.content] if self.content or not calls else []), *calls])


@dataclass(frozen=True, slots=True)
class Conversation:
    """A checked conversation: optional system turn, then user and assistant in turn.

    An assistant's turn may call tools, whose results follow as turns of the role `tool`. `source`
    and `line` say where it was read (1-based), and `index` which row of a JSON array it is
    (1-based; 0 in a file of lines), so that every later complaint can point at it.

    A pair holds two conversations that begin alike: `messages` ends with the chosen answer,
    `rejected` is the whole other one. `desirable` says of a labelled conversation (KTO) whether its
    last answer is a good one.
    """

    messages: tuple[Message, ...]
    source: str = "<memory>"
    line: int = 0
    tools: tuple[dict[str, Any], ...] = field(default=())
    index: int = 0
    rejected: tuple[Message, ...] = ()
    desirable: bool | None = None

    @property
    def where(self) -> str:
        return place_of(self.source, self.line, self.index)

    @property
    def kind(self) -> str:
        """What may be learned from it: `answers`, `pairs` or `labels`."""
        return "pairs" if self.rejected else "answers" if self.desirable is None else "labels"

    @property
    def num_shared(self) -> int:
        """Messages of the prompt that both answers of a pair follow, or a labelled one."""
        if self.rejected:
            return num_shared(self.messages, self.rejected)
        return len(self.without_last_answer().messages)

    @property
    def expected(self) -> str | None:
        """The answer that replies are compared with, of a pair the chosen one.

        None where there is none, or only an undesirable one.
        """
        answers = self.messages[len(self.without_last_answer().messages) :]
        return (answers[0].text or None) if answers and self.desirable is not False else None

    def without_last_answer(self) -> Conversation:
        """The same conversation up to the last user turn or tool result: what a model is asked.

        Of a pair, the prompt that both answers follow.
        """
        messages = self.messages
        if self.rejected:
            messages = messages[: self.num_shared]
        elif messages and messages[-1].role == "assistant":
            messages = messages[:-1]
        return replace(self, messages=messages, rejected=(), desirable=None)


def num_shared(first: Sequence[Message], second: Sequence[Message]) -> int:
    """How many messages two conversations begin alike with."""
    both = zip(first, second, strict=False)
    length = min(len(first), len(second))
    return next((place for place, (one, other) in enumerate(both) if one != other), length)


def place_of(source: str, line: int, index: int = 0) -> str:
    """Where a row stands: FILE:LINE, and which row of a JSON array it is."""
    return f"{source}:{line} (row {index})" if index else f"{source}:{line}"


@dataclass(frozen=True, slots=True)
class Tokens:
    """One encoded document, already shifted: `labels[t]` is predicted from `input_ids[: t + 1]`.

    Both arrays are int32 of shape (T,). Nothing follows the last label of a branch: later tokens
    cannot change the loss of a causal model, so they are not computed.

    `segments` (s, 3) int32 has a row for each segment, in the order of the tokens: its length, its
    parent (a row above it, -1: none) and its kind; None for one plain segment. `weights` (T,)
    float32 says how much each label counts; None: all of them once.
    """

    input_ids: np.ndarray
    labels: np.ndarray
    segments: np.ndarray | None = None
    weights: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.input_ids)


@dataclass(slots=True)
class Batch:
    """A flat micro-batch; see the module docstring for the layout.

    `boundaries` are the cumulative offsets [0, ..., N] of its segments; without the tables of
    segments below, each segment is a document, and a zero in `positions` starts it. `parents` are
    numbered within the batch, -1: none; None where all are. `owners` rise: the document that each
    segment belongs to; both and `kinds` lie on the CPU. `reference` holds what a reference pass
    found for each segment.

    `step_units` is what the summed loss is divided by: the labels (or their weights, or documents)
    of the *whole* optimizer step this batch belongs to, over all its micro-batches and all ranks.
    """

    input_ids: torch.Tensor  # (1, N) int64
    labels: torch.Tensor  # (1, N) int64
    positions: torch.Tensor  # (1, N) int64
    boundaries: torch.Tensor  # (segments + 1,) int32, CPU
    step_units: float
    micro_step: int = 0  # index of this micro-batch within its optimizer step
    ends_step: bool = True  # the optimizer steps after this micro-batch
    parents: torch.Tensor | None = None  # (segments,) int32, CPU
    owners: torch.Tensor | None = None  # (segments,) int32, CPU
    kinds: torch.Tensor | None = None  # (segments,) int8, CPU
    weights: torch.Tensor | None = None  # (1, N) float32; None: every label counts once
    reference: torch.Tensor | None = None  # (segments,) float32
    mismatched: tuple[Batch, ...] = ()  # of the whole step, where its objective needs them

    @property
    def num_tokens(self) -> int:
        return int(self.input_ids.numel())

    def segments(self) -> Iterator[slice]:
        """The segments' extents as slices into the N positions."""
        for start, end in pairwise(self.boundaries.tolist()):
            yield slice(start, end)

    def documents(self) -> Iterator[slice]:
        """The extents of whole documents, their branches included."""
        if self.owners is None:
            yield from self.segments()
            return
        owned = zip(self.owners.tolist(), self.segments(), strict=True)
        for _, group in groupby(owned, key=itemgetter(0)):
            places = [place for _, place in group]
            yield slice(places[0].start, places[-1].stop)

    def count(self, unit: str) -> float:
        """What this batch adds to a divisor: by "label" its labels or their weights, by "document"
        its documents that have a label.
        """
        labelled = self.labels[0] != IGNORE
        if unit == "document":
            on_cpu = labelled.cpu()
            return sum(bool(on_cpu[place].any()) for place in self.documents())
        if self.weights is None:
            return int(labelled.sum())
        return float(self.weights[0][labelled].double().sum())

    def to(self, device: torch.device | str) -> Batch:
        """The tables of segments but `reference` stay on the CPU, where attention reads them."""

        def moved(tensor: torch.Tensor | None) -> torch.Tensor | None:
            return None if tensor is None else tensor.to(device, non_blocking=True)

        return replace(
            self,
            input_ids=self.input_ids.to(device, non_blocking=True),
            labels=self.labels.to(device, non_blocking=True),
            positions=self.positions.to(device, non_blocking=True),
            weights=moved(self.weights),
            reference=moved(self.reference),
            mismatched=tuple(batch.to(device) for batch in self.mismatched),
        )


def widest(config: Any, name: str) -> int:
    """A width or a number of heads, the largest where layers differ (Gemma 4); 0 for none."""
    layers = [config]
    if getattr(config, "is_heterogeneous", False):
        layers = list(config.per_layer_config)
    return max(int(getattr(layer, name, None) or 0) for layer in layers)
