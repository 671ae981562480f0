"""Speculative decoding (arXiv 2211.17192, 2302.01318): a draft proposes, the base checks.

    read by the base     p p p p a                  a, the last token, is not read yet
    proposed             . . . . a  b c d e         one forward pass of the draft for each
    the base, one pass           a  b c d e    ->   what it says behind each of the five
    kept                            b c x           d is refused: x is drawn in its place

What comes out is what the base alone would have said: the same tokens when greedy, the same
distribution when drawn. Both forget what was refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from graftlab.generation.draw import allow

if TYPE_CHECKING:
    from graftlab.generation.draw import Sampler
    from graftlab.generation.turn import Turn
    from graftlab.models.base import Base
    from graftlab.models.context import Context


@dataclass(frozen=True, slots=True)
class Draft:
    """A small model with the vocabulary of the large one, its own adapter on if it has one."""

    base: Base
    num_tokens: int
    """Tokens proposed in a round, at most."""


@dataclass(frozen=True, slots=True)
class Speculated:
    """What speculation did for one reply."""

    rounds: int
    """Forward passes of the base."""
    proposed: int
    accepted: int
    """Proposed tokens that the base agreed to."""


@dataclass(frozen=True, slots=True)
class _Proposal:
    """What the draft says next: k tokens, and what each was drawn from."""

    tokens: list[int]
    probabilities: list[Tensor]
    """(V,) each; empty when greedy."""
    masks: list[Tensor | None]
    """What the guide allows at each place, and behind the last one: k + 1."""


def speculate(base: Base, turn: Turn, sampler: Sampler, draft: Draft) -> Speculated:
    """Carry `turn` to its end with the help of `draft`.

    A draft whose own context is full proposes nothing more, and decoding goes on plainly. Raises
    ModelError when the prompt fills the base's context, or a model cannot take back tokens.
    """
    rounds = proposed = accepted = 0
    with base.context(rewind=True) as reader, draft.base.context(rewind=True) as proposer:
        turn.fit(reader.limit, base.name)
        going = True
        while going:
            count = _count(turn, draft, proposer)
            proposal = _propose(proposer, turn, sampler, count=count, width=base.vocab_size)
            checked = _check(reader, turn, sampler, proposal)
            rounds, proposed = rounds + 1, proposed + len(proposal.tokens)
            accepted += len(checked) - 1
            for token in checked:
                going = turn.take(token)
                if not going:
                    break
            # The last token is read with the next round, and what was refused never was.
            for context in (reader, proposer):
                context.crop(min(context.length, len(turn.tokens) - 1))
    return Speculated(rounds, proposed, accepted)


def _count(turn: Turn, draft: Draft, proposer: Context) -> int:
    """How many tokens to propose: a round gives one more than the base agrees to."""
    most = min(draft.num_tokens, turn.left - 1)
    if proposer.limit is not None:
        most = min(most, proposer.limit - len(turn.tokens) + 1)
    return max(most, 0)


def _propose(
    proposer: Context, turn: Turn, sampler: Sampler, *, count: int, width: int
) -> _Proposal:
    """At most `count` tokens behind `turn`, by the draft; ends with one that would end the turn.

    `width` is the base's vocabulary: either may be padded beyond what the tokenizer uses.
    """
    proposal, guide = _Proposal([], [], []), turn.guide
    unread = turn.tokens[proposer.length :]
    ended = False
    while len(proposal.tokens) < count and not ended:
        logits = proposer.feed(_row(unread, sampler), last=1)[:, -1]  # (1, V of the draft)
        proposal.masks.append(guide.mask() if guide is not None else None)
        logits = allow(_widened(logits, width), proposal.masks[-1])
        if sampler.greedy:
            token = int(logits.argmax(-1))
        else:
            proposal.probabilities.append(sampler.probabilities(logits)[0])
            token = sampler.draw(proposal.probabilities[-1], turn.stream)
        proposal.tokens.append(token)
        if guide is not None:
            guide.accept(token)
        unread, ended = [token], turn.ends(token)
    proposal.masks.append(guide.mask() if guide is not None and not ended else None)
    if guide is not None:
        guide.rollback(len(proposal.tokens))
    return proposal


def _check(reader: Context, turn: Turn, sampler: Sampler, proposal: _Proposal) -> list[int]:
    """The proposed tokens that the base agrees to, and the one that it says behind them."""
    unread = [*turn.tokens[reader.length :], *proposal.tokens]
    logits = reader.feed(_row(unread, sampler), last=len(proposal.tokens) + 1)[0]  # (k + 1, V)
    if any(mask is not None for mask in proposal.masks):
        pairs = zip(logits, proposal.masks, strict=True)
        logits = torch.stack([allow(row, mask) for row, mask in pairs])
    if sampler.greedy:
        likeliest: list[int] = logits.argmax(-1).tolist()
        kept = 0
        while kept < len(proposal.tokens) and proposal.tokens[kept] == likeliest[kept]:
            kept += 1
        return likeliest[: kept + 1]
    wanted = sampler.probabilities(logits)
    for place, (token, drawn_from) in enumerate(
        zip(proposal.tokens, proposal.probabilities, strict=True)
    ):
        chance = float(wanted[place, token] / drawn_from[token])
        if float(torch.rand((), generator=turn.stream, device=sampler.device)) >= chance:
            instead = sampler.draw(residual(wanted[place], drawn_from), turn.stream)
            return [*proposal.tokens[:place], instead]
    return [*proposal.tokens, sampler.draw(wanted[-1], turn.stream)]


def residual(wanted: Tensor, drawn_from: Tensor) -> Tensor:
    """What a refused token is replaced from, (V,): where the base wants more than the draft gave.

    A token of the draft's q is kept with min(1, p / q); drawing the others from max(0, p - q) makes
    the two together p.
    """
    missing = (wanted - drawn_from).clamp(min=0)
    total = missing.sum()
    return missing / total if total > 0 else wanted  # p = q up to rounding


def _row(ids: list[int], sampler: Sampler) -> Tensor:
    return torch.tensor([ids], device=sampler.device)


def _widened(logits: Tensor, width: int) -> Tensor:
    """Logits (1, V) over a vocabulary of `width`: cut, or filled with what is never said."""
    own = logits.shape[-1]
    if own >= width:
        return logits[:, :width]
    return functional.pad(logits, (0, width - own), value=float("-inf"))
