"""The plain decode loop: one token of every open reply in each forward pass of the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from graftlab.generation.draw import allow

if TYPE_CHECKING:
    from graftlab.generation.draw import Sampler
    from graftlab.generation.turn import Turn
    from graftlab.models.base import Base


def decode(base: Base, turns: Sequence[Turn], sampler: Sampler) -> None:
    """Carry every turn to its end. Raises ModelError when a prompt fills the model's context.

    Prompts are padded on the left to the longest; a turn that ends leaves the batch. Each turn is
    what it is alone, up to the rounding of a matrix product with more rows.
    """
    prompts, padding = left_padded([turn.prompt for turn in turns])
    with base.context(padding=padding) as context:
        for turn in turns:
            turn.fit(context.limit, base.name)
        open_turns, ids = list(turns), prompts
        while open_turns:
            logits = context.feed(ids.to(base.device), last=1)[:, -1]
            tokens = choose(sampler, logits, open_turns)
            kept = [row for row, turn in enumerate(open_turns) if turn.take(tokens[row])]
            if 0 < len(kept) < len(open_turns):
                context.select(torch.tensor(kept, device=base.device))
            open_turns = [open_turns[row] for row in kept]
            ids = torch.tensor([[turn.ids[-1]] for turn in open_turns])


def choose(sampler: Sampler, logits: Tensor, turns: Sequence[Turn]) -> list[int]:
    """The next token of every turn, given its logits (B, V), of those that its guide allows."""
    if any(turn.guide is not None for turn in turns):
        masks = [turn.guide.mask() if turn.guide is not None else None for turn in turns]
        logits = torch.stack([allow(*pair) for pair in zip(logits, masks, strict=True)])
    return sampler.choose(logits, [turn.stream for turn in turns])


def left_padded(prompts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """The prompts as ids (B, T), and how much padding (B,) is in front of each."""
    longest = max(map(len, prompts))
    padding = [longest - len(prompt) for prompt in prompts]
    rows = [[0] * pad + list(prompt) for pad, prompt in zip(padding, prompts, strict=True)]
    return torch.tensor(rows), torch.tensor(padding)
