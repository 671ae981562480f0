"""A frozen linear layer under K adapters: block k of its rows passes through adapter k.

    down    (K, r, in)      ranks differ: rows beyond an adapter's own are zero
    up      (K, r, out)
    scale   (K, 1, 1)       an adapter without this module is all zero

Zero rows stay zero by themselves: the gradient of either factor is a product with the other. No
optimizer knows of them in any case.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from graftlab.adapters.dropout import KeyedDropout
from graftlab.adapters.linear import adapted_linear


class JointLinear(nn.Module):
    """`base` with `down`, `up` and `scale`, which `Stack` fills; `drops` holds K dropouts or None.

    `chosen` (indices into K) lets fewer blocks through than there are adapters, without gradients.
    """

    def __init__(
        self,
        base: nn.Linear,
        *,
        down: Tensor,
        up: Tensor,
        scale: Tensor,
        drops: Sequence[KeyedDropout | None],
    ) -> None:
        super().__init__()
        self.base = base
        self.down, self.up, self.scale = down, up, scale
        self.drops = list(drops)
        self.chosen: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Rows of any leading shape, K blocks of equal length in order."""
        down, up, scale = self.down, self.up, self.scale
        if self.chosen is not None:
            down, up, scale = down[self.chosen], up[self.chosen], scale[self.chosen]
        drops = self.drops if self.training else ()
        return adapted_linear(x, self.base, down, up, scale, drops)
