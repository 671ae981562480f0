"""Norms and gated MLPs that keep little for the backward pass, and make the rest again.

    x ---- norm ----> n --> q, k, v, gate, up        kept: x and a number for each row, not n
    gate, up -- act(gate) * up --> h --> down        kept: gate and up, not act(gate) and h

What an adapted linear reads is kept as its `Recipe`: tensors that are there anyway, and how they
make it, to the same bits. Backward passes are written by hand. Which modules are such is told by
the source of their forward, which most families of transformers share word for word; others stay.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from graftlab.models.base import Base

Make = Callable[..., Tensor]


@dataclass(frozen=True, slots=True)
class Recipe:
    """`make(*tensors)` is the tensor that carries this as its attribute `recipe`."""

    make: Make
    tensors: tuple[Tensor, ...]


LLAMA = """\
input_dtype = hidden_states.dtype
hidden_states = hidden_states.to(torch.float32)
variance = hidden_states.pow(2).mean(-1, keepdim=True)
hidden_states = hidden_states * torch.rsqrt(variance + self.variance_epsilon)
return self.weight * hidden_states.to(input_dtype)"""
GEMMA = """\
output = self._norm(x.float())
output = output * (1.0 + self.weight.float())
return output.type_as(x)"""
GATED = """\
down_proj = self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x))
return down_proj"""


def keep_little(base: Base) -> None:
    """Have the model's modules of these kinds keep little; `restore_modules` undoes it.

    For layers that are not compiled: the compiler makes such tensors again by itself.
    """
    for module in _known(base):
        forward = _gated if _body_of(module) == GATED else _normed
        module.forward = partial(forward, module)


def restore_modules(base: Base) -> None:
    """The modules run their own class's forward again."""
    for module in _known(base):
        module.__dict__.pop("forward", None)


def _known(base: Base) -> list[nn.Module]:
    modules = base.model.modules()
    return [module for module in modules if _body_of(module) in (LLAMA, GEMMA, GATED)]


def _body_of(module: nn.Module) -> str:
    return _body(type(module).forward)


@cache
def _body(forward: Callable[..., Tensor]) -> str:
    """The statements of a forward, without its docstring; '' where they cannot be read."""
    try:
        function = ast.parse(textwrap.dedent(inspect.getsource(forward))).body[0]
    except (OSError, TypeError, SyntaxError):
        return ""
    body = list(getattr(function, "body", []))
    if body and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
        body = body[1:]
    return "\n".join(ast.unparse(statement) for statement in body)


def _normed(module: Any, x: Tensor) -> Tensor:
    """A norm's forward; one whose weight is trained, or without gradients, is the class's own."""
    if not torch.is_grad_enabled() or module.weight.requires_grad or not x.requires_grad:
        return cast("Tensor", type(module).forward(module, x))
    gemma = _body_of(module) == GEMMA
    eps = module.eps if gemma else module.variance_epsilon
    out, inverse = _Norm.apply(x, module.weight, eps, gemma)  # type: ignore[no-untyped-call]
    out.recipe = Recipe(partial(_scaled, gemma), (x.detach(), inverse, module.weight))
    return cast("Tensor", out)


def _gated(module: Any, x: Tensor) -> Tensor:
    """A gated MLP's forward; with an activation of another kind it is the class's own."""
    slope = _SLOPES.get(type(module.act_fn).__name__)
    if not torch.is_grad_enabled() or not x.requires_grad or slope is None:
        return cast("Tensor", type(module).forward(module, x))
    gate, up = module.gate_proj(x), module.up_proj(x)
    hidden = _Gated.apply(module.act_fn, slope, gate, up)  # type: ignore[no-untyped-call]
    hidden.recipe = Recipe(partial(_product, module.act_fn), (gate.detach(), up.detach()))
    return cast("Tensor", module.down_proj(hidden))


def _scaled(gemma: bool, x: Tensor, inverse: Tensor, weight: Tensor) -> Tensor:
    """x / rms(x) times the weight, rounded where the model's own code rounds."""
    unit = _wide(x) * inverse
    return (unit * (1.0 + _wide(weight))).to(x.dtype) if gemma else weight * unit.to(x.dtype)


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


_SLOPES: dict[str, Make] = {
    "SiLU": torch.ops.aten.silu_backward,
    "SiLUActivation": torch.ops.aten.silu_backward,
    "GELUActivation": torch.ops.aten.gelu_backward,
    "GELUTanh": partial(torch.ops.aten.gelu_backward, approximate="tanh"),
}
"""Class of an activation -> its backward pass, of a gradient and the activation's input."""


def _product(act: Make, gate: Tensor, up: Tensor) -> Tensor:
    return act(gate) * up


class _Norm(torch.autograd.Function):
    """RMSNorm (arXiv 1910.07467) with a frozen weight, and 1 / rms(x) of each row."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, eps: float, gemma: bool
    ) -> tuple[Tensor, Tensor]:
        inverse = torch.rsqrt(_wide(x).pow(2).mean(-1, keepdim=True) + eps)
        ctx.gemma = gemma
        ctx.save_for_backward(x, inverse, weight)
        ctx.mark_non_differentiable(inverse)
        return _scaled(gemma, x, inverse, weight), inverse

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, inverse, weight = ctx.saved_tensors
        factor = 1.0 + _wide(weight) if ctx.gemma else weight
        unit, grad = _wide(x) * inverse, _wide(gradients[0] * factor)
        along = (grad * unit).mean(-1, keepdim=True)
        return (grad - unit.mul_(along)).mul_(inverse).to(x.dtype), None, None, None


class _Gated(torch.autograd.Function):
    """act(gate) * up, of which only gate and up are kept."""

    @staticmethod
    def forward(ctx: Any, act: Make, slope: Make, gate: Tensor, up: Tensor) -> Tensor:
        ctx.act, ctx.slope = act, slope
        ctx.save_for_backward(gate, up)
        return _product(act, gate, up)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        gate, up = ctx.saved_tensors
        grad = gradients[0]
        return None, None, ctx.slope(grad * up, gate), grad * ctx.act(gate)
