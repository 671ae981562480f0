"""What training's own code says to the rows, in fp32: with the adapter, and of the base alone."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from graftlab.adapters.attach import load_trained
from graftlab.console import console
from graftlab.generation.decode import make_turn
from graftlab.generation.draw import Sampler
from graftlab.generation.loop import decode
from graftlab.generation.sampling import Generation
from graftlab.progress import Progress
from graftlab.types import Conversation

if TYPE_CHECKING:
    from graftlab.adapters.artifact import TrainedModel
    from graftlab.adapters.base import Adapter
    from graftlab.exports.parity.rows import Row
    from graftlab.models.base import Base
    from graftlab.text.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Said:
    """What is said to one row."""

    trained: Tensor
    """(n, V) log-probabilities at the answer's tokens, in nats."""
    base: Tensor
    """(n, V) the same of the base alone."""
    reply: list[int]
    """The greedy reply, without the token that ends it."""


def reference(
    trained: TrainedModel, tokenizer: Tokenizer, rows: Sequence[Row], *, scale: float, tokens: int
) -> list[Said]:
    """What the trained model says to every row; it is out of memory again afterwards.

    Raises ModelError where the adapter is another base's, or a weight is not finite.
    """
    progress = Progress("rows as in training", total=len(rows), console=console())
    with loaded(trained) as (base, adapter), progress:
        found = []
        for row in rows:
            with adapter.disabled():
                alone = answered(base, row)
            with adapter.scaled(scale):
                told = answered(base, row)
                reply = _reply(base, tokenizer, row, tokens)
            found.append(Said(told, alone, reply))
            progress.advance()
    return found


@contextmanager
def loaded(trained: TrainedModel) -> Iterator[tuple[Base, Adapter]]:
    """The base with its adapter, in fp32 on the CPU, for the length of a `with` block."""
    gc.collect()  # a model may hold itself in cycles, and two of them need twice the memory
    base = trained.model.load(dtype=torch.float32, device=torch.device("cpu"))
    adapter = load_trained(base, trained, dtype=torch.float32)
    assert adapter is not None, "a whole model has no gate"
    yield base, adapter


@torch.no_grad()
def answered(base: Base, row: Row) -> Tensor:
    """(n, V) log-probabilities that the base, as it is at the moment, gives a row's answer."""
    logits = base.own_logits(torch.tensor([[*row.prompt, *row.answer]]))[0]
    return logits[len(row.prompt) - 1 : -1].float().log_softmax(-1)


def _reply(base: Base, tokenizer: Tokenizer, row: Row, tokens: int) -> list[int]:
    sampler = Sampler(Generation(max_new_tokens=tokens), base.device)
    asked = Conversation(row.messages, row.where, tools=row.tools)
    turn = make_turn(base, tokenizer, asked, sampler)
    decode(base, [turn])
    return [token for token in turn.ids if token not in turn.stop_ids]
