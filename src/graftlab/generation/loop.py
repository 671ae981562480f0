"""The plain decode loop: one token of every open reply in each forward pass of the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from graftlab.generation.draw import allow
from graftlab.models.finite import check_outputs

if TYPE_CHECKING:
    from graftlab.generation.turn import Turn
    from graftlab.models.base import Base


def decode(base: Base, turns: Sequence[Turn]) -> None:
    """Carry every turn to its end. Raises ModelError when a prompt fills the model's context, or
    where weights are not finite.

    Prompts are padded on the left to the longest; a turn that ends, or is cancelled, leaves the
    batch. Each turn is what it is alone, up to the rounding of a matrix product with more rows.
    """
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
