"""Which tensors an adapter on all linears of Apple's AFM text model has, in the model's own order.

    segment_0: 35 regular layers      qkv_transform (q, k, v), output_transform, gate, up, down
    segment_1: 21 that reuse keys     q_transform, output_transform, gate, up, down

The order is that of tamm's `named_parameters`, derived from the counts here and never from the
order of a file. `.fmadapter` names no tensor, so there the order is all there is.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from graftlab.apple.targets import ADAPTER
from graftlab.errors import ModelError, listed
from graftlab.models.weights import misfits

if TYPE_CHECKING:
    from torch import Tensor

HEAD_DIM = 128
"""Of the model that Apple ships; a state dict does not say how its rows fall into heads."""

_LAYER = re.compile(r"layers\.segment_(\d)\.layer_(\d+)\.")
_NAME = re.compile(
    rf"layers\.segment_([01])\.layer_(\d+)\.(.+)\.adapters\.{ADAPTER}(?:\.lora_([012]))?\.([ab])_transpose"
)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a tensor of the adapter belongs, in parts: other formats name them their own way."""

    segment: int
    layer: int
    module: str
    """The adapted module within its layer, such as attention.output_transform."""
    part: int | None
    """Which output of a fused q, k, v projection; None for a module with one output."""
    matrix: str
    """a or b."""


def place_of(name: str) -> Place:
    """The parts of a tensor's name. Raises ModelError for a name that tamm does not give."""
    match = _NAME.fullmatch(name)
    if match is None:
        raise ModelError(f"{name} is no tensor of a LoRA adapter on an AFM text model.")
    part = int(match[4]) if match[4] else None
    return Place(int(match[1]), int(match[2]), match[3], part, match[5])


@dataclass(frozen=True, slots=True)
class Slot:
    """One tensor of the adapter: its name and shape in tamm, and what rotates its rows."""

    name: str
    shape: tuple[int, int]
    """a_transpose (in, rank) or b_transpose (rank, out)."""
    heads: int = 0
    """Heads whose pairs RoPE rotates in the output of a q or k projection; 0 for all others."""

    @property
    def is_b(self) -> bool:
        return self.name.endswith("b_transpose")


@dataclass(frozen=True, slots=True)
class Layout:
    """The dimensions of model and adapter; the defaults are those of Apple's 3B model."""

    hidden: int = 2048
    layers: int = 56
    reuse: int = 21
    """Of the layers, how many (the last) reuse the keys and values of the one before them."""
    heads: int = 16
    kv_heads: int = 2
    feed_forward: int = 6656
    rank: int = 32

    def slots(self) -> Iterator[Slot]:
        """Every tensor in the order of tamm's `named_parameters`."""
        keys = self.hidden // self.heads * self.kv_heads
        projections = {
            "lora_0": (self.hidden, self.heads),
            "lora_1": (keys, self.kv_heads),
            "lora_2": (keys, 0),
        }
        for index in range(self.layers - self.reuse):
            layer = f"layers.segment_0.layer_{index}"
            for part, (out, heads) in projections.items():
                module = f"{layer}.attention.qkv_transform.adapters.{ADAPTER}.{part}"
                yield from self._pair(module, self.hidden, out, heads)
            yield from self._rest(layer)
        for index in range(self.reuse):
            layer = f"layers.segment_1.layer_{index}"
            module = f"{layer}.attention.q_transform.adapters.{ADAPTER}"
            yield from self._pair(module, self.hidden, self.hidden, self.heads)
            yield from self._rest(layer)

    def _rest(self, layer: str) -> Iterator[Slot]:
        hidden, wide = self.hidden, self.feed_forward
        for module, into, out in (
            ("attention.output_transform", hidden, hidden),
            ("feed_forward.hidden_transform.linear_0", hidden, wide),
            ("feed_forward.hidden_transform.linear_1", hidden, wide),
            ("feed_forward.output_transform", wide, hidden),
        ):
            yield from self._pair(f"{layer}.{module}.adapters.{ADAPTER}", into, out, 0)

    def _pair(self, module: str, into: int, out: int, heads: int) -> Iterator[Slot]:
        yield Slot(f"{module}.a_transpose", (into, self.rank))
        yield Slot(f"{module}.b_transpose", (self.rank, out), heads)

    def check(self, state: Mapping[str, Tensor]) -> None:
        """Raise ModelError, every reason at once, unless `state` is exactly this adapter."""
        slots = {slot.name: slot.shape for slot in self.slots()}
        if problems := misfits(state, slots):
            raise ModelError(
                f"an adapter of rank {self.rank} on all linears of this model has {len(slots)} "
                f"tensors, and this is another: {listed(problems, 4, '; ')}."
            )


def layout_of(state: Mapping[str, Tensor], *, heads: int | None = None) -> Layout:
    """The layout that a toolkit checkpoint has, read from its names and shapes, and checked.

    `heads` is the model's number of query heads, which the tensors do not say; None takes heads of
    128, as Apple's model has them. Raises ModelError for an adapter on fewer linears, of mixed
    ranks, or of another model.
    """
    found = _whole(state)
    hidden, keys = found.hidden, found.hidden // found.heads * found.kv_heads
    if heads is None and (hidden % HEAD_DIM or keys % HEAD_DIM):
        raise ModelError(
            f"its rows of {hidden} and {keys} numbers are not those of Apple's model, and do not "
            "say how many heads there are: give the model that it was trained on."
        )
    heads = heads or hidden // HEAD_DIM
    kv_heads = keys * heads // hidden
    if hidden % heads or kv_heads * (hidden // heads) != keys or hidden // heads % 2:
        raise ModelError(f"rows of {hidden} and {keys} do not fall into {heads} heads.")
    return replace(found, heads=heads, kv_heads=kv_heads)


def adapts_all(state: Mapping[str, Tensor]) -> bool:
    """Whether `state` adapts every linear of every layer, with one rank."""
    try:
        _whole(state)
    except ModelError:
        return False
    return True


def _whole(state: Mapping[str, Tensor]) -> Layout:
    """The layout of an adapter on all linears, checked; heads as few as the widths allow."""
    counts = [0, 0]
    for name in state:
        if (match := _LAYER.match(name)) and (segment := int(match[1])) < 2:
            counts[segment] = max(counts[segment], int(match[2]) + 1)
    first = "layers.segment_0.layer_0."
    shapes = {name.removeprefix(first): tuple(t.shape) for name, t in state.items()}
    try:
        hidden, rank = shapes[f"attention.output_transform.adapters.{ADAPTER}.a_transpose"]
        keys = shapes[f"attention.qkv_transform.adapters.{ADAPTER}.lora_1.b_transpose"][1]
        wide = shapes[f"feed_forward.hidden_transform.linear_0.adapters.{ADAPTER}.b_transpose"][1]
    except (KeyError, ValueError, IndexError) as error:
        raise ModelError(
            "it does not adapt all linears of an AFM text model (q, k, v, attention output, gate, "
            "up, down), as lora=afm-r32 and the toolkit do."
        ) from error
    dim = math.gcd(hidden, keys)
    layout = Layout(hidden, sum(counts), counts[1], hidden // dim, keys // dim, wide, rank)
    layout.check(state)
    return layout


def layout_of_sizes(elements: list[int], rank: int) -> Layout | None:
    """The layout whose tensors have these numbers of elements, in order; None when none has.

    Heads are of 128 as in Apple's model where they can be: sizes do not depend on them.
    """
    if len(elements) < 24 or any(count % rank for count in elements):
        return None
    hidden, keys, wide = (elements[place] // rank for place in (0, 3, 9))
    dim = math.gcd(hidden, keys) if hidden % HEAD_DIM or keys % HEAD_DIM else HEAD_DIM
    draft = Layout(hidden, 1, 0, hidden // dim, keys // dim, wide, rank)
    for regular in range(1, len(elements) // 14 + 1):
        reuse, rest = divmod(len(elements) - 14 * regular, 10)
        if rest:
            continue
        layout = replace(draft, layers=regular + reuse, reuse=reuse)
        if [slot.shape[0] * slot.shape[1] for slot in layout.slots()] == elements:
            return layout
    return None
