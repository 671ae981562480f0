"""16-bit products on a processor without units for them: operands widened, computed in fp32.

    weight (N, K) bf16 --.
                          >-- widened, 4 MiB at a time --> product in fp32 --> rounded to bf16
    input  (M, K) bf16 --'

Weights, activations and what backward keeps stay in 16 bits; a product rounds its result once, as
bf16 units do. By itself torch multiplies one number at a time there: with 1,024 rows a product
takes 4 (forward) to 30 times (backward) as long as in fp32, and 1.0 to 1.1 times in this way.

The kernels of torch's operators are replaced, below autograd and autocast. So this holds in every
thread, forward and backward, for stock modules, custom operators and compiled graphs alike.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor

PIECE = 2**20
"""Most numbers of a right operand that are widened at once: 4 MiB, which stay in the caches."""

_libraries: list[torch.library.Library] = []
"""What holds the replaced kernels in place."""


def upcast_products() -> None:
    """From now on this process computes 16-bit products of the CPU in fp32; once is enough."""
    if _libraries:
        return
    import torch

    from graftlab.packing.attention_segments import OPERATORS as segments

    aten = torch.ops.aten
    flash = (
        aten._scaled_dot_product_flash_attention_for_cpu.default,
        aten._scaled_dot_product_flash_attention_for_cpu_backward.default,
    )
    for operator in (aten.mm.default, aten.mm.out):
        _replace(operator, _product, native=_is_vector)
    for operator in (aten.addmm.default, aten.addmm.out, aten.addmm_.default):
        _replace(operator, _add_product, native=_is_vector)
    for operator in (aten.bmm.default, aten.bmm.out):
        _replace(operator, _folded(_widened(aten.bmm.default)))
    for operator in (aten.baddbmm.default, aten.baddbmm.out, aten.baddbmm_.default):
        _replace(operator, _widened(aten.baddbmm.default))
    for operator in (aten.convolution.default, aten.convolution_backward.default):
        _replace(operator, _widened(operator))
    for forward, backward in (flash, segments):
        # The second output, the log-sum-exp, is fp32 whatever the inputs are.
        _replace(forward, _widened(forward, keeps=(1,)))
        _replace(backward, _widened(backward))


def computed_in(x: Tensor) -> torch.dtype:
    """The dtype in which products with `x` are best asked for: fp32 where this process upcasts.

    Whoever takes several of them widens and rounds once that way. One row is left to torch, and so
    is a graph, whose products come by the replaced kernels when it runs.
    """
    import torch

    narrow = x.dtype in (torch.bfloat16, torch.float16) and x.device.type == "cpu"
    one_row = x.numel() == x.shape[-1]
    if not _libraries or not narrow or one_row or torch.compiler.is_compiling():
        return x.dtype
    return torch.float32


def product(left: Tensor, right: Tensor, bias: Tensor | None = None) -> Tensor:
    """(..., K) x (K, N) + (N,), in the dtype of `left`: that of a weight, or `computed_in` it.

    Weights that are codes have the values here that they have in their own dtype.
    """
    import torch

    from graftlab.models.quantization.weight import QuantizedWeight

    rows = left.reshape(-1, left.shape[-1])
    if left.dtype != right.dtype:
        wide = right.wide() if isinstance(right, QuantizedWeight) else right
        out = _add_product(None, bias, rows, wide)
    elif bias is None:
        out = torch.mm(rows, right)
    else:
        out = torch.addmm(bias, rows, right)
    return out.view(*left.shape[:-1], -1)


def _replace(
    operator: torch._ops.OpOverload,
    compute: Callable[..., Any],
    *,
    native: Callable[..., bool] = lambda *operands: False,
) -> None:
    """Have `compute` serve 16-bit calls of the operator, but for those that are `native`.

    `compute` takes the dispatcher's keys, the operator's arguments, and `out` where the result is
    to be written.
    """
    import torch

    kernel = torch.library.get_kernel(operator, "CPU")
    narrow = (torch.bfloat16, torch.float16)
    in_place = operator._schema.name.endswith("_")

    def replacement(keys: torch.DispatchKeySet, *args: Any, **kwargs: Any) -> Any:
        dtype = args[0].dtype
        if dtype not in narrow or args[1].dtype != dtype or native(*args):
            return kernel.call_boxed(keys, *args, **kwargs)
        if in_place:
            kwargs["out"] = args[0]
        return compute(keys, *args, **kwargs)

    library = torch.library.Library(operator.namespace, "IMPL")  # type: ignore[no-untyped-call]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Warning only once for all operators")
        library.impl(  # type: ignore[no-untyped-call]
            operator, replacement, "CPU", with_keyset=True
        )
    _libraries.append(library)


def _is_vector(*operands: Tensor) -> bool:
    """Whether it is one row times a transposed weight: torch widens that in registers itself."""
    return operands[-2].size(0) == 1 and operands[-1].stride(0) == 1


def _product(
    keys: torch.DispatchKeySet, left: Tensor, right: Tensor, *, out: Tensor | None = None
) -> Tensor:
    """(M, K) x (K, N) -> (M, N)."""
    return _add_product(keys, None, left, right, out=out)


def _add_product(
    keys: torch.DispatchKeySet | None,
    base: Tensor | None,
    left: Tensor,
    right: Tensor,
    *,
    beta: float = 1,
    alpha: float = 1,
    out: Tensor | None = None,
) -> Tensor:
    """beta * base + alpha * (M, K) x (K, N) -> (M, N), the right operand widened by pieces.

    A weight lies in memory row by row. Forward multiplies with its transpose, so a piece of it
    makes columns of the result; backward multiplies with itself, so each piece adds to all of it.
    """
    import torch

    shape = torch.Size((left.shape[0], right.shape[1]))
    added = None if base is None else base.float().expand(shape)

    def multiply(left: Tensor, right: Tensor, added: Tensor | None) -> Tensor:
        if added is None:
            return torch.mm(left.float(), right.float())
        return torch.addmm(added, left.float(), right.float(), beta=beta, alpha=alpha)

    def result(total: Tensor) -> Tensor:
        if out is None and total.dtype == left.dtype:
            return total
        return (left.new_empty(shape) if out is None else _target(out, shape)).copy_(total)

    if right.numel() <= PIECE:
        return result(multiply(left, right, added))
    if right.stride(0) == 1:
        out = left.new_empty(shape) if out is None else _target(out, shape)
        left = left.float()
        step = max(1, PIECE // right.shape[0])
        for first in range(0, right.shape[1], step):
            columns = slice(first, first + step)
            part = None if added is None else added[:, columns]
            out[:, columns] = multiply(left, right[:, columns], part)
        return out
    step = max(1, PIECE // right.shape[1])
    total = multiply(left[:, :step], right[:step], added)
    for first in range(step, right.shape[0], step):
        rows = slice(first, first + step)
        total.addmm_(left[:, rows].float(), right[rows].float(), alpha=alpha)
    return result(total)


def _folded(compute: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """`compute` for batches, but where all share one right operand, which is widened once.

    `nn.Linear` asks so, by a weight expanded over the batch, where rows do not lie side by side.
    """
    import torch

    def folded(
        keys: torch.DispatchKeySet, left: Tensor, right: Tensor, *, out: Tensor | None = None
    ) -> Tensor:
        if len(right) == 0 or (len(right) > 1 and right.stride(0) != 0):
            return compute(keys, left, right, out=out)
        rows = torch.mm(left.flatten(0, 1), right[0])
        found = rows.view(*left.shape[:2], right.shape[2])
        return found if out is None else _target(out, found.shape).copy_(found)

    return folded


def _widened(operator: torch._ops.OpOverload, *, keeps: Sequence[int] = ()) -> Callable[..., Any]:
    """The operator on widened arguments, its outputs rounded but for those in `keeps`."""
    import torch

    kernel, wide = torch.library.get_kernel(operator, "CPU"), torch.float32

    def compute(
        keys: torch.DispatchKeySet, *args: Any, out: Tensor | None = None, **kwargs: Any
    ) -> Any:
        narrow = args[0].dtype

        def recast(value: Any, before: torch.dtype, after: torch.dtype) -> Any:
            is_one = isinstance(value, torch.Tensor) and value.dtype == before
            return value.to(after) if is_one else value

        named = {name: recast(value, narrow, wide) for name, value in kwargs.items()}
        found = kernel.call_boxed(keys, *(recast(x, narrow, wide) for x in args), **named)
        if isinstance(found, tuple):
            return tuple(
                x if index in keeps else recast(x, wide, narrow) for index, x in enumerate(found)
            )
        return found.to(narrow) if out is None else _target(out, found.shape).copy_(found)

    return compute


def _target(out: Tensor, shape: torch.Size) -> Tensor:
    """`out` in the shape of its new content."""
    return out if out.shape == shape else out.resize_(shape)
