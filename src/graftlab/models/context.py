"""What a model has read: a KV cache that grows by feeding, behind one small protocol.

    row 0     . . p p p p a b c      "." is left padding: start[0] = 2
    row 1     p p p p p p a b c      start[1] = 0
    length    ---------------->      padding included, so the same for every row

The decode loop, speculative decoding and guided generation know a model by this alone.

Legend: B rows, T tokens fed, V vocabulary.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Self

from torch import Tensor


class Context(ABC):
    """Rows that one model reads in step; made by `Base.context` and used inside `with` blocks.

    What was read stays from one block to the next, and the model is as it was between them.
    Nothing records gradients. Whatever adapter is on, at whatever strength, reads along, so it must
    be the same in all blocks.
    """

    length: int
    """Tokens read by each row, left padding included."""
    limit: int | None
    """Most tokens, padding not counted, that a row may hold; None when the model knows no end."""

    @abstractmethod
    def feed(self, ids: Tensor, *, last: int | None = None) -> Tensor:
        """Read `ids` (B, T) behind what was read: next-token logits (B, T, V) in fp32.

        With `last`, logits of the last so many positions alone are computed, (B, last, V): a long
        prompt with a large vocabulary would fill the memory.
        """

    @abstractmethod
    def crop(self, length: int) -> None:
        """Forget all that was read behind the first `length` tokens of every row.

        Only in a context that was opened with `rewind`.
        """

    @abstractmethod
    def select(self, rows: Tensor) -> None:
        """Keep only these `rows` (n,), in this order: the others have ended."""

    @abstractmethod
    def __enter__(self) -> Self:
        """Set the model up for reading: no dropout, no recomputation, attention with a cache."""

    @abstractmethod
    def __exit__(self, *error: object) -> None:
        """Put the model back as it was."""
