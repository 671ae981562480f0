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
from graftlab.generation.loop import say

if TYPE_CHECKING:
    from graftlab.generation.draw import Guide, Sampler
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
    """(V,) each; empty where the tokens are only matched with the base's."""


def speculate(base: Base, turn: Turn, draft: Draft) -> Speculated:
    """Carry `turn` to its end with the help of `draft`.

    A draft whose own context is full proposes nothing more, and decoding goes on plainly. Raises
    ModelError when the prompt fills the base's context, or a model cannot take back tokens.
    """
    rounds = proposed = accepted = 0
    sampler = turn.sampler
    with base.context(rewind=True) as reader, draft.base.context(rewind=True) as proposer:
        turn.begin(reader.limit, base.name)
        # Under a guide, which may refuse what its mask allows, no distribution is at hand: then
        # what the base says is drawn as ever, and what the draft says counts if it is the same.
        matched = sampler.greedy or turn.guide is not None
        while turn.open:
            count = _count(turn, draft, proposer)
            proposal = _propose(proposer, turn, count=count, width=base.vocab_size, matched=matched)
            unread = [*turn.tokens[reader.length :], *proposal.tokens]
            logits = reader.feed(_row(unread, sampler), last=len(proposal.tokens) + 1)[0]
            rounds, proposed = rounds + 1, proposed + len(proposal.tokens)
            accepted += (_match if matched else _weigh)(turn, logits, proposal)
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


def _propose(proposer: Context, turn: Turn, *, count: int, width: int, matched: bool) -> _Proposal:
    """At most `count` tokens, up to one that ends the turn: the likeliest that the guide allows
    where they are `matched`, else drawn ones with what they were drawn from.

    `width` is the base's vocabulary: either may be padded beyond what the tokenizer uses.
    """
    tokens: list[int] = []
    probabilities: list[Tensor] = []
    unread, guide, sampler = turn.tokens[proposer.length :], turn.guide, turn.sampler
    while len(tokens) < count and not (tokens and turn.ends(tokens[-1])):
        logits = _widened(proposer.feed(_row(unread, sampler), last=1)[0, -1:], width)
        if matched:
            tokens.append(_likeliest(logits, guide))
        else:
            probabilities.append(sampler.probabilities(logits)[0])
            tokens.append(sampler.draw(probabilities[-1], turn.stream))
        unread = tokens[-1:]
    if guide is not None:
        guide.rollback(len(tokens))
    return _Proposal(tokens, probabilities)


def _likeliest(logits: Tensor, guide: Guide | None) -> int:
    """The likeliest token by logits (1, V) that the guide, if there is one, accepts."""
    while True:
        token = int(allow(logits, guide.mask() if guide is not None else None).argmax())
        if guide is None or guide.accept(token):
            return token


def _match(turn: Turn, logits: Tensor, proposal: _Proposal) -> int:
    """Say what the base says by logits (k + 1, V), as long as it is what was proposed."""
    for place, row in enumerate(logits):
        token = say(turn, row)
        if place == len(proposal.tokens) or token != proposal.tokens[place]:
            return place
        if not turn.open:
            return place + 1
    raise AssertionError("the last place has nothing proposed")


def _weigh(turn: Turn, logits: Tensor, proposal: _Proposal) -> int:
    """Say the proposed tokens that are likely enough by logits (k + 1, V), and one behind them."""
    sampler = turn.sampler
    wanted = sampler.probabilities(logits)
    pairs = zip(proposal.tokens, proposal.probabilities, strict=True)
    for place, (token, drawn_from) in enumerate(pairs):
        chance = float(wanted[place, token] / drawn_from[token])
        if not sampler.keeps(chance, turn.stream):
            turn.take(sampler.draw(residual(wanted[place], drawn_from), turn.stream))
            return place
        turn.take(token)
    if turn.open:
        turn.take(sampler.draw(wanted[-1], turn.stream))
    return len(proposal.tokens)


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
