"""From next-token logits to a token: temperature, top-k, top-p, min-p, and a guide's mask.

Legend: n positions, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

if TYPE_CHECKING:
    from graftlab.generation.sampling import Generation

NUCLEUS = 1024
"""Tokens that top-p sorts at first: the whole of a large vocabulary is seldom needed."""


class Guide(Protocol):
    """What one reply may say next, token by token; follows the reply as it grows."""

    @property
    def done(self) -> bool:
        """Nothing may follow: the reply is whole."""

    def mask(self) -> Tensor | None:
        """Allowed ids as (V,) bool, at least one of them true; None where anything goes."""

    def accept(self, token: int) -> bool:
        """The reply goes on with `token`, which the mask allows. False: draw anew by a new mask."""

    def rollback(self, count: int) -> None:
        """Take back the last `count` accepted tokens: they were only proposed."""


class Sampler:
    """Chooses tokens as a `Generation` says; every reply draws from a random stream of its own."""

    def __init__(self, generation: Generation, device: torch.device) -> None:
        self.generation, self.device = generation, device
        self.greedy = generation.temperature == 0

    def stream(self) -> torch.Generator:
        """A fresh stream of the seed; the process's own generators are left untouched."""
        return torch.Generator(self.device).manual_seed(self.generation.seed)

    def probabilities(self, logits: Tensor) -> Tensor:
        """What tokens are drawn from, (n, V), given fp32 logits (n, V); not for greedy choices.

        Temperature comes first, then top-k, top-p (of what top-k left) and min-p.
        """
        assert not self.greedy, "a greedy choice has no distribution"
        wanted = self.generation
        scores = logits / wanted.temperature
        if wanted.top_k is not None and wanted.top_k < scores.shape[-1]:
            least = scores.topk(wanted.top_k, dim=-1).values[:, -1:]
            scores = scores.masked_fill(scores < least, float("-inf"))
        if wanted.top_p is not None and wanted.top_p < 1:
            scores = scores.masked_fill(~_nucleus(scores.softmax(-1), wanted.top_p), float("-inf"))
        if wanted.min_p is not None:
            probabilities = scores.softmax(-1)
            least = wanted.min_p * probabilities.amax(-1, keepdim=True)
            scores = scores.masked_fill(probabilities < least, float("-inf"))
        return scores.softmax(-1)

    def draw(self, probabilities: Tensor, stream: torch.Generator) -> int:
        """One token from (V,)."""
        return int(torch.multinomial(probabilities, 1, generator=stream))

    def keeps(self, chance: float, stream: torch.Generator) -> bool:
        """True with this chance, always when it is 1 or more."""
        return float(torch.rand((), generator=stream, device=self.device)) < chance

    def choose(self, logits: Tensor, streams: Iterable[torch.Generator]) -> list[int]:
        """A token for each row of (n, V), drawn from that row's own stream."""
        if self.greedy:
            return logits.argmax(-1).tolist()
        pairs = zip(self.probabilities(logits), streams, strict=True)
        return [self.draw(row, stream) for row, stream in pairs]


def allow(logits: Tensor, mask: Tensor | None) -> Tensor:
    """`logits` (..., V) with all that the mask (V,) does not allow put out of reach."""
    if mask is None:
        return logits
    return logits.masked_fill(~mask.to(logits.device), float("-inf"))


def _nucleus(probabilities: Tensor, mass: float) -> Tensor:
    """True (n, V) for the likeliest tokens up to the one that reaches `mass` (arXiv 1904.09751)."""
    size = min(NUCLEUS, probabilities.shape[-1])
    top, ids = probabilities.topk(size, dim=-1)
    if size < probabilities.shape[-1] and bool((top.sum(-1) < mass).any()):
        top, ids = probabilities.sort(dim=-1, descending=True)
    kept = top.cumsum(-1) - top < mass  # the mass in front of each
    kept[:, 0] = True
    return torch.zeros_like(probabilities, dtype=torch.bool).scatter_(-1, ids, kept)
