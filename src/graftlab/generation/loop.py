"""The decode loop: one token of every open reply in each forward pass of the model.

    slots      turns in their own slots; the next waiting one comes where one has ended, and what
               all prompts begin with is read once
    contexts   where the model has no slots: a batch of turns, padded on the left, to its end

Each turn is what it is alone, up to the rounding of a matrix product with more rows.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from graftlab.generation.draw import allow
from graftlab.models.finite import check_outputs

if TYPE_CHECKING:
    from graftlab.generation.turn import Turn
    from graftlab.models.base import Base
    from graftlab.models.slots import Slots

SHARED = 16
"""Tokens that all prompts have to begin with, at least, to be read once."""
PASS = 512
"""Tokens of prompts that are read in one pass, beside a token of each reply that is under way."""


def decode(
    base: Base,
    turns: Sequence[Turn],
    *,
    batch: int | None = None,
    on_end: Callable[[Turn], None] = lambda turn: None,
    more: Callable[[int], Sequence[Turn]] = lambda room: (),
) -> None:
    """Carry every turn to its end, at most `batch` of them at a time, the first ones first.

    `on_end` is told of each as it ends or is found cancelled. `more(room)` may give up to `room`
    further turns whenever there is room beside those that are under way; it is not asked where the
    model has no slots. Raises ModelError when a prompt fills the model's context, or where weights
    are not finite.
    """
    size = batch or len(turns)
    shared = _shared([turn.prompt for turn in turns])
    with base.answering():
        if (slots := base.slots(size + bool(shared))) is not None:
            _Refilled(base, slots, shared, on_end, more).run(turns)
            return
        for start in range(0, len(turns), size):
            _padded(base, turns[start : start + size], on_end)


class _Refilled:
    """Turns in slots."""

    def __init__(
        self,
        base: Base,
        slots: Slots,
        shared: list[int],
        on_end: Callable[[Turn], None],
        more: Callable[[int], Sequence[Turn]],
    ) -> None:
        """`shared` is read into the last slot, to begin others with; where it is empty, none is."""
        self._base, self._slots, self._on_end, self._more = base, slots, on_end, more
        self._shared, count = shared, len(slots.lengths)
        self._free = list(range(count - bool(shared)))
        self._open: dict[int, Turn] = {}
        self._unread: dict[int, Sequence[int]] = {}
        """Of each open slot: the tokens that it has not read yet."""

    def run(self, turns: Sequence[Turn]) -> None:
        from graftlab.models.slots import Piece

        waiting = deque(turns)
        for start in range(0, len(self._shared), PASS):
            piece = self._shared[start : start + PASS]
            self._slots.read([Piece(len(self._slots.lengths) - 1, piece, last=0)])
        while True:
            if self._open and len(waiting) < len(self._free):
                waiting += self._more(len(self._free) - len(waiting))
            while waiting and self._free:
                self._begin(waiting.popleft())
            if not self._open:
                return
            self._step()
            for slot in [slot for slot, turn in self._open.items() if not turn.open]:
                self._end(slot)

    def _begin(self, turn: Turn) -> None:
        turn.begin(self._slots.limit, self._base.name)
        if not turn.open:
            self._on_end(turn)
            return
        slot = self._free.pop()
        begun = len(self._shared)
        if begun and turn.prompt[:begun] == self._shared:
            self._slots.copy(len(self._slots.lengths) - 1, slot)
        else:
            begun = 0
        self._open[slot], self._unread[slot] = turn, turn.prompt[begun:]

    def _end(self, slot: int) -> None:
        self._slots.empty(slot)
        self._free.append(slot)
        del self._unread[slot]
        self._on_end(self._open.pop(slot))

    def _step(self) -> None:
        """One pass: what is unread of every slot, of prompts at most `PASS` tokens together."""
        from graftlab.models.slots import Piece

        pieces, whole, left = [], [], PASS
        for slot, unread in self._unread.items():
            ids = unread if len(unread) == 1 else unread[:left]
            if not ids:
                continue
            left -= len(ids) if len(unread) > 1 else 0
            done = len(ids) == len(unread)
            pieces.append(Piece(slot, ids, last=int(done)))
            self._unread[slot] = unread[len(ids) :]
            if done:
                whole.append(slot)
        logits = self._slots.read(pieces)
        if not whole:
            return
        turns = [self._open[slot] for slot in whole]
        if not all(turn.ids for turn in turns) and bool(logits.isnan().any()):
            check_outputs(self._base, logits)
        say_all(turns, logits)
        for slot, turn in zip(whole, turns, strict=True):
            self._unread[slot] = turn.ids[-1:]


def _shared(prompts: Sequence[list[int]]) -> list[int]:
    """What all prompts begin with, but for the last token of any; nothing where that is short."""
    least, most = min(prompts), max(prompts)
    length = min(map(len, prompts)) - 1
    pairs = zip(least[:length], most, strict=False)
    same = next((at for at, (one, other) in enumerate(pairs) if one != other), length)
    return least[:same] if len(prompts) > 1 and same >= SHARED else []


def _padded(base: Base, turns: Sequence[Turn], on_end: Callable[[Turn], None]) -> None:
    """Carry the turns to their ends in one context; one that ends leaves the batch."""
    prompts, padding = left_padded([turn.prompt for turn in turns])
    with base.context(padding=padding) as context:
        for turn in turns:
            turn.begin(context.limit, base.name)
        unread, ids = list(turns), prompts
        while unread:
            logits = context.feed(ids.to(base.device), last=1)[:, -1]
            if ids is prompts and bool(logits.isnan().any()):
                check_outputs(base, logits)
            say_all(unread, logits)
            kept = [row for row, turn in enumerate(unread) if turn.open]
            for turn in unread:
                if not turn.open:
                    on_end(turn)
            if 0 < len(kept) < len(unread):
                context.select(torch.tensor(kept, device=base.device))
            unread = [unread[row] for row in kept]
            ids = torch.tensor([[turn.ids[-1]] for turn in unread])


def say_all(turns: Sequence[Turn], logits: Tensor) -> None:
    """Every turn takes the token that its row of logits (B, V) gives."""
    sampler = turns[0].sampler
    if any(turn.guide is not None or turn.sampler is not sampler for turn in turns):
        for turn, row in zip(turns, logits, strict=True):
            say(turn, row)
        return
    tokens = sampler.choose(logits, [turn.stream for turn in turns])
    for turn, token in zip(turns, tokens, strict=True):
        turn.take(token)


def say(turn: Turn, logits: Tensor) -> int:
    """The turn takes the token that logits (V,) give, of those that its guide allows."""
    while True:
        mask = turn.guide.mask() if turn.guide is not None else None
        (token,) = turn.sampler.choose(allow(logits, mask)[None], [turn.stream])
        if turn.take(token):
            return token


def left_padded(prompts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """The prompts as ids (B, T), and how much padding (B,) is in front of each."""
    longest = max(map(len, prompts))
    padding = [longest - len(prompt) for prompt in prompts]
    rows = [[0] * pad + list(prompt) for pad, prompt in zip(padding, prompts, strict=True)]
    return torch.tensor(rows), torch.tensor(padding)
