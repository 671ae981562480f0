"""Documents for people: token by token, the trained ones told apart with and without colour.

on a terminal   trained tokens green on dark, every other token underlined
elsewhere       <|im_start|>|assistant|↵ ⟦Hello|.|<|im_end|>⟧

Tokens that count other than once are followed by their weight: ⟦Hello|.⟧×0.5
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import TYPE_CHECKING

import numpy as np

from graftlab.types import CHOSEN, IGNORE, PLAIN, REJECTED, Tokens

if TYPE_CHECKING:
    from rich.text import Text

    from graftlab.text.tokenizer import Tokenizer

TRAINED = "bold green"
CONTEXT = "dim"
_PAIR = {PLAIN: "turn", CHOSEN: "chosen", REJECTED: "rejected"}
_JUDGED = {PLAIN: "", CHOSEN: "desirable", REJECTED: "undesirable"}

Marked = tuple[str, float]
"""A token's piece, and how much it counts in the loss: 0 for one that is not trained."""


@dataclass(frozen=True, slots=True)
class Branch:
    """A segment of a document; `name` says which, nothing for a document of one plain segment."""

    name: str
    tokens: list[Marked]


def shown_branches(document: Tokens, tokenizer: Tokenizer) -> list[Branch]:
    """The segments in order, of each every token, its last label included, line ends visible.

    A branch begins with the last token of what it goes on from.
    """
    table = document.segments
    if table is None:
        table = np.array([[len(document), -1, PLAIN]])
    names = _JUDGED if len(table) == 1 else _PAIR
    shown = []
    for row, (start, end) in enumerate(pairwise([0, *np.cumsum(table[:, 0]).tolist()])):
        if (table[:, 1] == row).any():
            pieces = _pieces(document.input_ids[start:end], tokenizer)
            shown.append(Branch("prompt", [(piece, 0.0) for piece in pieces]))
            continue
        ids = [*document.input_ids[start:end].tolist(), int(document.labels[end - 1])]
        counts = np.where(document.labels[start:end] == IGNORE, 0.0, 1.0)
        if document.weights is not None:
            counts = counts * document.weights[start:end]
        marked = zip(_pieces(ids, tokenizer), [0.0, *counts.tolist()], strict=True)
        shown.append(Branch(names[int(table[row, 2])], list(marked)))
    return shown


def shown_tokens(document: Tokens, tokenizer: Tokenizer) -> list[Marked]:
    """The tokens of all segments, one behind the other."""
    return [token for branch in shown_branches(document, tokenizer) for token in branch.tokens]


def _pieces(ids: Sequence[int] | np.ndarray, tokenizer: Tokenizer) -> list[str]:
    return [piece.replace("\n", "↵\n") for piece in tokenizer.pieces([int(index) for index in ids])]


def as_text(tokens: Sequence[Marked], *, colour: bool) -> Text:
    """Tokens as rich text: coloured, or with bars between tokens and brackets round the trained."""
    from rich.text import Text

    text, index = Text(), 0
    for weight, group in groupby(tokens, key=lambda token: token[1]):
        pieces = [piece for piece, _ in group]
        told = "" if weight in (0, 1) else f"×{weight:g}"
        if colour:
            style = TRAINED if weight else CONTEXT
            for piece in pieces:
                text.append(piece, style=f"{style} underline" if index % 2 else style)
                index += 1
            text.append(told, style=CONTEXT)
        else:
            run = "|".join(pieces)
            text.append(f"⟦{run}⟧{told}" if weight else run)
    return text
