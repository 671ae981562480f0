"""How likely a model finds each of several answers to one prompt, which is read once.

prompt     p p p p p        read as one row, then held for every option
options    a b c .          logits of the last token are not needed
           d e . .          "." is padding, behind all that counts
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from graftlab.errors import ModelError
from graftlab.models.finite import check_outputs

if TYPE_CHECKING:
    from graftlab.models.base import Base


def option_likelihoods(
    base: Base, prompt: Sequence[int], options: Sequence[Sequence[int]], *, where: str
) -> tuple[float, ...]:
    """Log-likelihood of each option's tokens behind the prompt's, in nats.

    Raises ModelError where one has no tokens, or the model's context is too short.
    """
    longest = max(map(len, options))
    if not all(options):
        raise ModelError(f"{where}: an option has no tokens.")
    with base.context() as context, torch.no_grad():
        if context.limit is not None and len(prompt) + longest > context.limit:
            raise ModelError(
                f"{where}: prompt and option have {len(prompt) + longest} tokens, and {base.name} "
                f"has room for {context.limit}."
            )
        logits = context.feed(torch.tensor([list(prompt)], device=base.device), last=1)
        if bool(logits.isnan().any()):
            check_outputs(base, logits)
        first = logits[0, -1].log_softmax(-1)
        totals = [float(first[ids[0]]) for ids in options]
        if longest == 1:
            return tuple(totals)
        context.select(torch.zeros(len(options), dtype=torch.long, device=base.device))
        rows = [[*ids[:-1], *[0] * (longest - len(ids))] for ids in options]
        scores = context.feed(torch.tensor(rows, device=base.device)).log_softmax(-1)
    for row, ids in enumerate(options):
        for place, token in enumerate(ids[1:]):
            totals[row] += float(scores[row, place, token])
    return tuple(totals)
