"""How far apart two ways of computing the same may come out: what rounding explains, and no more.

A sum taken in another order differs by a few roundings of its largest terms, and every layer adds
its own. So a bound is a number of roundings per layer, in the dtype that was computed in, of the
largest magnitude there is; it is the same on every processor, whatever order its units sum in.
"""

from __future__ import annotations

import torch
from torch import Tensor

ROUNDINGS = 48
"""Of one layer, beneath the largest value; measured on miniatures: 2 to 6, AVX2 and AVX-512."""


def rounding(scale: float, *, depth: int, dtype: torch.dtype = torch.float32) -> float:
    """The absolute difference that `depth` layers of `dtype` explain at a magnitude of `scale`."""
    return ROUNDINGS * depth * torch.finfo(dtype).eps * scale


def assert_same(
    ours: Tensor, theirs: Tensor, *, depth: int = 4, dtype: torch.dtype | None = None
) -> None:
    """Equal but for rounding. `dtype`: computed in, where what is compared has been cast since.

    Refuses to judge values so small or so alike that the bound would let anything through.
    """
    scale = theirs.detach().abs().max().item()
    bound = rounding(scale, depth=depth, dtype=dtype or theirs.dtype)
    bound = max(bound, 2 * torch.finfo(theirs.dtype).eps * scale)  # of the cast
    spread = (theirs.detach() - theirs.detach().mean()).abs().max().item()
    assert bound < 0.2 * spread, f"{bound:.1e} would let through what is wrong: up to {spread:.1e}"
    torch.testing.assert_close(ours, theirs, rtol=0, atol=bound)
