"""Documents that are longer than a row, and what to say of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graftlab.types import Tokens

_PARTS = ("prompt", "chosen", "rejected")
"""What the segments of a pair are, by kind."""


@dataclass(frozen=True, slots=True)
class Dropped:
    """A document longer than the limit."""

    where: str
    tokens: int
    parts: tuple[int, ...] = ()
    """Tokens of a pair's prompt, chosen and rejected answer; empty for any other document."""

    @classmethod
    def of(cls, where: str, document: Tokens) -> Dropped:
        """The document that came from `where`."""
        table = document.segments
        if table is None or len(table) == 1:
            return cls(where, len(document))
        lengths = np.bincount(table[:, 2], table[:, 0], minlength=len(_PARTS))
        return cls(where, len(document), tuple(lengths.astype(int).tolist()))

    @property
    def said(self) -> str:
        """How long it is, in words."""
        told = ", ".join(f"{name} {count}" for name, count in zip(_PARTS, self.parts, strict=False))
        return f"{self.tokens} tokens{told and f' ({told})'}"
