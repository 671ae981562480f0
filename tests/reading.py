"""What every `Context` must do, whatever model it reads with: shared by the tests of each kind."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from graftlab.models.base import Base
from tolerance import assert_same


def tokens(rows: int, length: int, *, seed: int = 0) -> Tensor:
    return torch.randint(3, 400, (rows, length), generator=torch.Generator().manual_seed(seed))


def close(ours: Tensor, theirs: Tensor, *, dtype: torch.dtype = torch.float32) -> None:
    """Logits of the same tokens, computed in `dtype` and told in fp32."""
    assert_same(ours, theirs, dtype=dtype)


def assert_padding_is_not_read(
    base: Base,
    lengths: tuple[int, int, int],
    *,
    whole: Callable[[Tensor], Tensor],
    dtype: torch.dtype = torch.float32,
) -> None:
    """Three rows of those prompt `lengths`, padded on the left, of which two go on to the end.

    `whole` gives the logits (T, V) of a row (T,) read at once, alone.
    """
    rows = [tokens(1, length + 4, seed=length)[0] for length in lengths]
    padding = torch.tensor([max(lengths) - length for length in lengths])
    filler = torch.zeros(max(lengths), dtype=torch.long)
    prompts = torch.stack([torch.cat([filler[len(row) - 4 :], row[:-4]]) for row in rows])
    kept = torch.tensor([2, 1])
    with base.context(padding=padding) as context:
        heard = [context.feed(prompts, last=1)]
        heard.append(context.feed(torch.stack([r[-4:-2] for r in rows])))
        context.select(kept)
        heard.append(context.feed(torch.stack([rows[row][-2:] for row in kept])))
    first = torch.cat(heard[:2], dim=1)
    for index, row in enumerate(rows):
        close(first[index], whole(row)[-5:-2], dtype=dtype)
    for place, row in enumerate(kept):
        close(heard[2][place], whole(rows[row])[-2:], dtype=dtype)
