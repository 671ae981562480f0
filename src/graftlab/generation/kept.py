"""What a model has read of a conversation, kept from one reply to the next.

prompt and reply 1    p p p p a b c
prompt 2              p p p p a b d u u u     the template may write an answer anew
kept                  p p p p a b
read now                          d u u u
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from graftlab.errors import ModelError
from graftlab.generation.loop import say
from graftlab.models.finite import check_outputs

if TYPE_CHECKING:
    from graftlab.generation.turn import Turn
    from graftlab.models.base import Base
    from graftlab.models.context import Context

PIECE = 256
"""Tokens of a prompt that are read in one pass: a cancelled turn ends after the present one."""


class KeptContext:
    """A context that stays open for the next turn, which reads only what is new in its prompt.

    It belongs to one adapter at one strength. Models whose layers cannot forget single tokens read
    every prompt from its beginning.
    """

    def __init__(self, base: Base) -> None:
        self._base = base
        self._context: Context | None = None
        self._ids: list[int] = []  # what it holds

    def decode(self, turn: Turn) -> int:
        """Carry `turn` to its end, or until it is cancelled; how much of its prompt was read now.

        Raises ModelError when the prompt fills the model's context, or where weights are not
        finite.
        """
        with self._opened() as context:
            turn.begin(context.limit, self._base.name)
            kept = _num_common(self._ids, turn.prompt[:-1])  # the last one's logits are asked for
            if kept < len(self._ids):
                context.crop(kept)
                del self._ids[kept:]
            unread = turn.prompt[kept:]
            while unread and turn.open:
                piece = unread[:PIECE] if self._context is not None else unread
                logits = self._read(context, piece)
                unread = unread[len(piece) :]
            if unread:  # cancelled before the first token
                return len(turn.prompt) - kept - len(unread)
            if bool(logits.isnan().any()):
                check_outputs(self._base, logits)
            while turn.open:
                token = say(turn, logits[0, -1])
                if turn.open:
                    logits = self._read(context, [token])
        return len(turn.prompt) - kept

    def _opened(self) -> Context:
        """The context that was kept; a new one where there is none, or the model cannot rewind."""
        if self._context is None:
            self._ids = []
            try:
                self._context = self._base.context(rewind=True)
            except ModelError:
                return self._base.context()
        return self._context

    def _read(self, context: Context, ids: list[int]) -> Tensor:
        """Logits (1, 1, V) behind `ids`; a pass that fails leaves nothing that could be kept."""
        kept, self._context = self._context, None
        logits = context.feed(torch.tensor([ids], device=self._base.device), last=1)
        self._context = kept
        self._ids += ids
        return logits


def _num_common(first: Sequence[int], second: Sequence[int]) -> int:
    """How many tokens two sequences begin alike with."""
    pairs = zip(first, second, strict=False)
    length = min(len(first), len(second))
    return next((place for place, (one, other) in enumerate(pairs) if one != other), length)
