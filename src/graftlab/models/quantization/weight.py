"""A frozen weight that is kept as codes and is an ordinary matrix to whoever multiplies with it.

    y = x W^T      x, y: compute dtype      W: codes and scales, widened for this product alone

`QuantizedWeight` is a tensor of W's shape whose dtype is that of the products. PEFT, joint training
and `torch.compile` see the weight of an `nn.Linear`; what autograd keeps for the backward pass is
the codes. Every operation that is not listed here works on the widened weight.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

aten = torch.ops.aten

PIECE = 2**18
"""Values that are widened at a time by each thread of a processor: what fits its cache."""
SLICE = {"cpu": 2**22}
"""Values that are widened at a time of a weight with more than four times as many."""
OTHER_SLICE = 2**26
"""The same on other devices, where that is a head of a large vocabulary."""


class Scheme(ABC):
    """How codes become values. Schemes are compared by value: compiled graphs are guarded by them.

    A scheme is a frozen dataclass without tensors; what varies with the weight is in its parts.
    """

    by_rows: ClassVar[bool] = False
    """Whether the first axis of every part is that of rows: some can be widened by themselves."""

    @abstractmethod
    def widen(self, parts: Sequence[Tensor], shape: torch.Size, dtype: torch.dtype) -> Tensor:
        """The weight (out, in) in `dtype`, from tensors such as codes and scales.

        Differentiable functions are not needed; ones that `torch.compile` can trace are.
        """


def is_traced(part: Tensor) -> bool:
    """Whether a graph is being made, in which no tensor has values yet."""
    return type(part) is not Tensor


def in_pieces(rows: Tensor, width: int) -> list[slice]:
    """Slices of `rows`, each of `width` values, that a processor works through in its cache.

    One slice on other devices, whose operations had better be few, and in a graph.
    """
    if rows.device.type != "cpu" or is_traced(rows):
        return [slice(0, len(rows))]
    size = max(1, PIECE * torch.get_num_threads() // width)
    return [slice(start, start + size) for start in range(0, len(rows), size)]


class QuantizedWeight(Tensor):
    """Codes under the shape (out, in) and the dtype that products with them have; frozen."""

    scheme: Scheme
    parts: tuple[Tensor, ...]
    transposed: bool

    @staticmethod
    def __new__(
        cls,
        scheme: Scheme,
        parts: Sequence[Tensor],
        shape: Sequence[int],
        dtype: torch.dtype,
        *,
        transposed: bool = False,
    ) -> QuantizedWeight:
        """`shape` is (out, in) of the weight, whether or not this is its transpose."""
        size = torch.Size(shape)
        outer, strides = (size[::-1], (1, size[1])) if transposed else (size, (size[1], 1))
        device = parts[0].device
        weight = Tensor._make_wrapper_subclass(
            cls, outer, strides=strides, dtype=dtype, device=device, requires_grad=False
        )
        weight.scheme, weight.parts, weight.transposed = scheme, tuple(parts), transposed
        for number, part in enumerate(weight.parts):
            setattr(weight, f"part{number}", part)
        return weight

    def wide(self, dtype: torch.dtype | None = None) -> Tensor:
        """The weight as an ordinary tensor, in its own dtype unless told otherwise."""
        shape = self.shape[::-1] if self.transposed else self.shape
        values = self.scheme.widen(self.parts, torch.Size(shape), dtype or self.dtype)
        return values.t() if self.transposed else values

    def rows(self, chosen: Tensor | slice) -> Tensor:
        """Some rows of the weight (out, in), in its own dtype; no others are widened."""
        assert self.scheme.by_rows
        assert not self.transposed
        parts = [part[chosen] for part in self.parts]
        return self.scheme.widen(parts, torch.Size((len(parts[0]), self.shape[1])), self.dtype)

    def __repr__(self) -> str:  # type: ignore[override]
        size, kind = tuple(self.shape), str(self.dtype).removeprefix("torch.")
        return f"QuantizedWeight({size}, {self.scheme}, widened to {kind})"

    def __tensor_flatten__(self) -> tuple[list[str], tuple[Any, ...]]:
        names = [f"part{number}" for number in range(len(self.parts))]
        return names, (self.scheme, self.dtype, self.transposed)

    @staticmethod
    def __tensor_unflatten__(
        inner: dict[str, Tensor], context: tuple[Any, ...], size: Any, stride: Any
    ) -> QuantizedWeight:
        scheme, dtype, transposed = context
        shape = tuple(size)[::-1] if transposed else tuple(size)
        return QuantizedWeight(scheme, list(inner.values()), shape, dtype, transposed=transposed)

    def _stable_hash_for_caching(self) -> str:
        """What a compiled graph depends on; asked by torch for its cache on disk."""
        return repr((self.scheme, self.dtype, self.transposed, [p.dtype for p in self.parts]))

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls,
        func: Any,
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[Any, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func in _KEPT:
            return _KEPT[func](*args, **kwargs)
        if func._schema.is_mutable and isinstance(args[0], cls):
            raise RuntimeError(f"{func} would write to a quantised weight, which is frozen.")
        args, kwargs = tree_map(_widened, (args, kwargs))
        return func(*args, **kwargs)


def widen_parameters(module: nn.Module, dtype: torch.dtype) -> None:
    """Make ordinary parameters of those that are codes: what is trained in full is written to."""
    for part in module.modules():
        for name, parameter in part.named_parameters(recurse=False):
            codes = parameter.data
            if isinstance(codes, QuantizedWeight):
                values = nn.Parameter(codes.wide(dtype), requires_grad=parameter.requires_grad)
                setattr(part, name, values)


@contextmanager
def widened(module: nn.Module) -> Iterator[None]:
    """Inside, ordinary frozen weights in place of all that are codes; tied ones stay one."""
    made: dict[int, nn.Parameter] = {}
    kept: list[tuple[nn.Module, str, nn.Parameter]] = []
    try:
        for part in module.modules():
            for name, parameter in part.named_parameters(recurse=False):
                codes = parameter.data
                if isinstance(codes, QuantizedWeight):
                    if id(parameter) not in made:
                        made[id(parameter)] = nn.Parameter(codes.wide(), requires_grad=False)
                    kept.append((part, name, parameter))
                    setattr(part, name, made[id(parameter)])
        yield
    finally:
        for part, name, parameter in kept:
            setattr(part, name, parameter)


def _widened(value: Any) -> Any:
    return value.wide() if isinstance(value, QuantizedWeight) else value


def _with_parts(
    weight: QuantizedWeight, change: Callable[[Tensor], Tensor], *, transposed: bool | None = None
) -> QuantizedWeight:
    shape = weight.shape[::-1] if weight.transposed else weight.shape
    return QuantizedWeight(
        weight.scheme,
        [change(part) for part in weight.parts],
        shape,
        weight.dtype,
        transposed=weight.transposed if transposed is None else transposed,
    )


def _same(weight: QuantizedWeight, *_: Any, **__: Any) -> QuantizedWeight:
    return _with_parts(weight, lambda part: part)


def _turned(weight: QuantizedWeight, *_: Any) -> QuantizedWeight:
    """Both axes of a matrix change places, whichever numbers they are called by."""
    return _with_parts(weight, lambda part: part, transposed=not weight.transposed)


def _permuted(weight: QuantizedWeight, dims: Sequence[int]) -> QuantizedWeight:
    return _same(weight) if dims[0] in (0, -2) else _turned(weight)


def _cloned(weight: QuantizedWeight, **_: Any) -> QuantizedWeight:
    return _with_parts(weight, torch.clone)


def _copied(
    weight: QuantizedWeight, *, dtype: torch.dtype | None = None, device: Any = None, **_: Any
) -> Tensor:
    """To another device as codes, to another dtype as values."""
    moved = weight if device is None else _with_parts(weight, lambda part: part.to(device))
    return moved if dtype in (None, weight.dtype) else moved.wide(dtype)


def _embedded(weight: QuantizedWeight, ids: Tensor, *_: Any, **__: Any) -> Tensor:
    if not weight.scheme.by_rows:
        return torch.embedding(weight.wide(), ids)
    return weight.rows(ids.reshape(-1)).view(*ids.shape, -1)


def _product(left: Tensor, right: Tensor) -> Tensor:
    """x W^T or g W, of a large W slice by slice."""
    size = SLICE.get(right.device.type, OTHER_SLICE)
    if (
        not isinstance(right, QuantizedWeight)
        or isinstance(left, QuantizedWeight)
        or right.numel() <= 4 * size
        or not right.scheme.by_rows
        or is_traced(left)
    ):
        return torch.mm(_widened(left), _widened(right))
    weight = _turned(right) if right.transposed else right
    step = max(1, size // weight.shape[1])
    slices = [slice(start, start + step) for start in range(0, len(weight), step)]
    if right.transposed:
        product = left.new_empty((len(left), len(weight)))
        for rows in slices:
            product[:, rows] = left @ weight.rows(rows).t()
        return product
    total = left.new_zeros((len(left), weight.shape[1]), dtype=torch.float32)
    for rows in slices:
        total += left[:, rows] @ weight.rows(rows)
    return total.to(left.dtype)


_KEPT: dict[Any, Callable[..., Tensor]] = {
    aten.detach.default: _same,
    aten.alias.default: _same,
    aten.t.default: _turned,
    aten.transpose.int: _turned,
    aten.permute.default: _permuted,
    aten.clone.default: _cloned,
    aten._to_copy.default: _copied,
    aten.embedding.default: _embedded,
    aten.mm.default: _product,
}
