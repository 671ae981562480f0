"""A frozen linear layer and its low-rank updates as one autograd node.

    x     K blocks of N rows             h = (drop(x) A^T) s        y = x W^T + b + h B^T
    A     down, (K, r, in)
    B^T   up, (K, r, out)
    s     scale, a number or (K, 1, 1)

A run alone is K = 1. Kept for the backward pass are h and x, as the layer before it gave it or as
what makes it again; the mask of a dropout is drawn anew. Casts are those of PEFT's layers under
autocast, except that the sum of base and update is rounded once instead of twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from peft.tuners.lora.layer import Linear
from torch import Tensor, nn

from graftlab.adapters.dropout import KeyedDropout, keyed_dropout
from graftlab.models.recompute import Recipe
from graftlab.models.upcast import computed_in, product

NAME = "default"
"""PEFT's name of the one adapter there is; files do not carry it."""

Shares = tuple[float | None, ...]
"""How much of each block a dropout zeroes; None where there is none, () where nowhere is one."""


def adapted_linear(
    x: Tensor,
    linear: nn.Linear,
    down: Tensor,
    up: Tensor,
    scale: float | Tensor,
    drops: Sequence[KeyedDropout | None] = (),
) -> Tensor:
    """Rows of any leading shape, K blocks of equal length in order, through base and updates.

    `drops` has a dropout or None for each block, or is empty. Products are taken in W's dtype. A
    compiled graph has no node: what it keeps the compiler settles.
    """
    blocks = x.reshape(down.shape[0], -1, x.shape[-1])
    keys = [drop.key for drop in drops if drop is not None]
    shares = tuple(None if drop is None else drop.p for drop in drops)
    shares = shares if keys else ()
    given: Any = (blocks, linear.weight, linear.bias, down, up, scale, shares)
    if not torch.is_grad_enabled() or torch.compiler.is_compiling():
        out = _forward(*given, *keys)[0]
    else:
        recipe = getattr(x, "recipe", None)  # a node of models/recompute.py made x
        out = cast("Tensor", _Adapted.apply(*given, recipe, *keys))  # type: ignore[no-untyped-call]
    return out.view(*x.shape[:-1], out.shape[-1])


class AdaptedLinear(Linear):  # type: ignore[misc]
    """PEFT's LoRA on an `nn.Linear`, computed by one node; names, weights and merging are PEFT's.

    PEFT's own forward stays where it computes something else: the adapter is switched off or
    merged, or W is in another dtype than its products.
    """

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        down, up = self.lora_A[NAME].weight, self.lora_B[NAME].weight
        linear, kind = self.get_base_layer(), x.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else down.dtype
        if args or kwargs or self.disable_adapters or self.merged or linear.weight.dtype != dtype:
            return cast("Tensor", super().forward(x, *args, **kwargs))
        drop = self.lora_dropout[NAME]
        drops = (drop,) if self.training and isinstance(drop, KeyedDropout) else ()
        return adapted_linear(x, linear, down[None], up.t()[None], self.scaling[NAME], drops)


def is_plain(layer: Any) -> bool:
    """Whether a layer of PEFT's is LoRA on an `nn.Linear` and nothing more."""
    return (
        type(layer) in (Linear, AdaptedLinear)
        and type(layer.get_base_layer()) is nn.Linear
        and not layer.lora_variant
        and layer.lora_B[NAME].bias is None
    )


class _Adapted(torch.autograd.Function):
    """Base product and update in one node: one input gradient, and only what it needs is kept."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        down: Tensor,
        up: Tensor,
        scale: float | Tensor,
        shares: Shares,
        recipe: Recipe | None,
        *keys: Tensor,
    ) -> Tensor:
        out, kept, inner = _forward(x, weight, bias, down, up, scale, shares, *keys)
        ctx.wide, ctx.shares = x.dtype, shares
        ctx.make = None if recipe is None else recipe.make
        sources = (kept,) if recipe is None else recipe.tensors
        ctx.sources = len(sources)
        ctx.number = None if isinstance(scale, Tensor) else scale
        scales = (scale,) if isinstance(scale, Tensor) else ()
        ctx.save_for_backward(inner, weight, down, up, *sources, *keys, *scales)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        with torch.autocast(gradients[0].device.type, enabled=False):
            grad_x, grad_down, grad_up = _backward(ctx, gradients[0])
        rest = len(ctx.needs_input_grad) - 5
        return grad_x, None, None, grad_down, grad_up, *([None] * rest)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
    inner, weight, down, up, *rest = ctx.saved_tensors
    sources, keys = rest[: ctx.sources], rest[ctx.sources :]
    scale = keys.pop() if ctx.number is None else ctx.number
    x = sources[0] if ctx.make is None else ctx.make(*sources)
    x = x.to(weight.dtype).view(len(inner), -1, x.shape[-1])
    mask = _mask(x, ctx.shares, keys, down.dtype)
    dtype = computed_in(x)
    x, grad = x.to(dtype), grad.to(dtype).contiguous()
    u = torch.bmm(grad, up.to(dtype).mT).mul_(scale)
    grad_up = torch.bmm(inner.to(dtype).mT, grad).to(up.dtype)
    source = x if mask is None else x * mask.to(dtype)
    grad_down = torch.bmm(u.mT, source).to(down.dtype)
    del x, source
    if not ctx.needs_input_grad[0]:
        return None, grad_down, grad_up
    grad_x = product(grad, weight)
    if mask is None:
        grad_x.baddbmm_(u, down.to(dtype))
    else:
        grad_x.add_(torch.bmm(u, down.to(dtype)).mul_(mask.to(dtype)))
    return grad_x.to(ctx.wide), grad_down, grad_up


def _forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    down: Tensor,
    up: Tensor,
    scale: float | Tensor,
    shares: Shares,
    *keys: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """y (K, N, out), and what is kept: x (K, N, in) and h (K, N, r), all in W's dtype."""
    with torch.autocast(x.device.type, enabled=False):
        mask = _mask(x, shares, keys, down.dtype)
        kept = x.to(weight.dtype)
        dtype = computed_in(kept)
        x = kept.to(dtype)
        source = x if mask is None else x * mask.to(dtype)
        inner = torch.bmm(source, down.to(dtype).mT).mul_(scale)
        out = product(x, weight.t(), bias)
        out.baddbmm_(inner, up.to(dtype))
        return out.to(weight.dtype), kept, inner.to(weight.dtype)


def _mask(x: Tensor, shares: Shares, keys: Sequence[Tensor], dtype: torch.dtype) -> Tensor | None:
    """What the dropouts multiply x (K, N, in) with, in `dtype`; None where nothing is dropped.

    Each block's is drawn as in a run alone: of (1, N, in) in the adapter's dtype, which that is.
    """
    if not keys:
        return None
    left, ones = list(keys), torch.ones(1, *x.shape[1:], dtype=dtype, device=x.device)
    parts = [ones if p is None else keyed_dropout(ones, left.pop(0), p) for p in shares]
    return torch.cat(parts)
