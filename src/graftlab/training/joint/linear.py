"""A frozen linear layer under K adapters: block k of its rows passes through adapter k.

    x     K blocks of N rows             h = (x A^T) s        y = x W^T + h B^T
    A     down, (K, r, in)
    B^T   up, (K, r, out)                ranks differ: rows beyond an adapter's own are zero
    s     scale, (K, 1, 1)               an adapter without this module is all zero

Zero rows stay zero by themselves: the gradient of either factor is a product with the other. No
optimizer knows of them in any case. The casts are those of PEFT under autocast, except that the sum
of base and update is rounded once instead of twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from graftlab.adapters.dropout import KeyedDropout


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
        self.drops = list(drops) if any(drop is not None for drop in drops) else None
        self.chosen: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Rows of any leading shape, K blocks of equal length in order."""
        down, up, scale = self.down, self.up, self.scale
        if self.chosen is not None:
            down, up, scale = down[self.chosen], up[self.chosen], scale[self.chosen]
        blocks = x.reshape(down.shape[0], -1, x.shape[-1])
        dropped = self._dropped(blocks) if self.training and self.drops is not None else None
        out = cast(
            "Tensor",
            _Adapted.apply(blocks, dropped, self.base.weight, self.base.bias, down, up, scale),  # type: ignore[no-untyped-call]
        )
        return out.view(*x.shape[:-1], out.shape[-1])

    def _dropped(self, blocks: Tensor) -> Tensor:
        """Each block under its own dropout, drawn as in a run alone: on (1, N, in) in `down`'s
        dtype, in which PEFT draws.
        """
        assert self.drops is not None
        parts = [
            block if drop is None else drop(block.to(self.down.dtype)).to(block.dtype)
            for drop, block in zip(self.drops, blocks.chunk(len(self.drops)), strict=True)
        ]
        return torch.cat(parts)


class _Adapted(torch.autograd.Function):
    """Base product and update in one node: one input gradient, and only what it needs is kept."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        dropped: Tensor | None,
        weight: Tensor,
        bias: Tensor | None,
        down: Tensor,
        up: Tensor,
        scale: Tensor,
    ) -> Tensor:
        ctx.wide, ctx.trained = x.dtype, down.dtype
        x = x.to(weight.dtype)
        source = x if dropped is None else dropped.to(weight.dtype)
        down, up = down.to(weight.dtype), up.to(weight.dtype)
        inner = torch.bmm(source, down.mT).mul_(scale)
        out = functional.linear(x, weight, bias)
        out.baddbmm_(inner, up)
        ctx.save_for_backward(source, inner, weight, down, up, scale)
        ctx.drops = dropped is not None
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        source, inner, weight, down, up, scale = ctx.saved_tensors
        grad = gradients[0].contiguous()
        needs_x, needs_dropped = ctx.needs_input_grad[:2]
        u = torch.bmm(grad, up.mT).mul_(scale)
        grad_up = torch.bmm(inner.mT, grad).to(ctx.trained)
        grad_down = torch.bmm(u.mT, source).to(ctx.trained)
        grad_x = grad_dropped = None
        if needs_x:
            grad_x = torch.matmul(grad, weight)
            if not ctx.drops:
                grad_x.baddbmm_(u, down)
            grad_x = grad_x.to(ctx.wide)
        if needs_dropped:
            grad_dropped = torch.bmm(u, down).to(ctx.wide)
        return grad_x, grad_dropped, None, None, grad_down, grad_up, None
