"""Models small enough to know by heart: next-token logits from a table, no weights, no text."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Self

import torch
from torch import Tensor

from graftlab.models.context import Context

CPU = torch.device("cpu")


class TableBase:
    """What follows depends on the last token and on how many were read: `table` (T, V, V)."""

    name = "table"
    device = CPU

    def __init__(self, table: Tensor, *, limit: int | None = None) -> None:
        self.table, self.limit = table, limit
        self.vocab_size = table.shape[-1]
        self.fed: list[int] = []
        """Tokens of every forward pass."""

    def answering(self) -> AbstractContextManager[None]:
        return nullcontext()

    def slots(self, count: int) -> None:
        return None

    def context(self, *, padding: Tensor | None = None, rewind: bool = False) -> Context:
        assert padding is None or not padding.any()
        return _TableContext(self)


class _TableContext(Context):
    def __init__(self, base: TableBase) -> None:
        self.base, self.read = base, list[int]()
        self.limit = base.limit

    @property
    def length(self) -> int:  # type: ignore[override]
        return len(self.read)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None: ...

    def feed(self, ids: Tensor, *, last: int | None = None) -> Tensor:
        start = len(self.read)
        self.read += ids[0].tolist()
        self.base.fed.append(ids.shape[1])
        assert self.limit is None or len(self.read) <= self.limit, "read beyond the context"
        table = self.base.table
        places = range(start, len(self.read))
        rows = [table[place % len(table), self.read[place] % len(table[0])] for place in places]
        return torch.stack(rows)[None, -(last or len(rows)) :]

    def crop(self, length: int) -> None:
        assert 0 <= length <= len(self.read)
        del self.read[length:]

    def select(self, rows: Tensor) -> None:
        assert rows.tolist() == [0]


def table_base(*, seed: int, vocab: int, spread: float = 1.0, **options: Any) -> TableBase:
    """A random table; the larger `spread`, the surer it is of what follows."""
    generator = torch.Generator().manual_seed(seed)
    return TableBase(torch.randn(7, vocab, vocab, generator=generator) * spread, **options)
