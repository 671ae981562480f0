"""Documents for people: token by token, the trained ones told apart with and without colour.

on a terminal   trained tokens green on dark, every other token underlined
elsewhere       <|im_start|>|assistant|↵ ⟦Hello|.|<|im_end|>⟧
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from graftlab.types import IGNORE, Tokens

if TYPE_CHECKING:
    from rich.text import Text

    from graftlab.text.tokenizer import Tokenizer

TRAINED = "bold green"
CONTEXT = "dim"


def shown_tokens(document: Tokens, tokenizer: Tokenizer) -> list[tuple[str, bool]]:
    """(piece, trained) of every token, the last label included, line ends made visible."""
    ids = [*document.input_ids.tolist(), int(document.labels[-1])]
    trained = [False, *(document.labels != IGNORE).tolist()]
    pieces = [piece.replace("\n", "↵\n") for piece in tokenizer.pieces(ids)]
    return list(zip(pieces, trained, strict=True))


def as_text(tokens: Sequence[tuple[str, bool]], *, colour: bool) -> Text:
    """Tokens as rich text: coloured, or with bars between tokens and brackets round the trained."""
    from rich.text import Text

    text = Text()
    if colour:
        for index, (piece, trained) in enumerate(tokens):
            style = TRAINED if trained else CONTEXT
            text.append(piece, style=f"{style} underline" if index % 2 else style)
        return text
    for trained, group in groupby(tokens, key=lambda token: token[1]):
        run = "|".join(piece for piece, _ in group)
        text.append(f"⟦{run}⟧" if trained else run)
    return text
