"""Four-bit normal floats: codes and scales from a weight, and its values from them.

    weight    64 values a block, row after row  ~  codes of 4 bits, two a byte, the first one high
                                                x  scales fp32, max |block|
    double    scales                            ~  codes of 8 bits  x  fp32, one for 256  +  mean

The codes are those of bitsandbytes 0.50 (arXiv 2305.14314), bit by bit. Scales get the nearest of
the 256 values of a dynamic tree (arXiv 1511.04561), as there. Its kernel for processors takes a
neighbour where two are nearly as near, for one in 300; and its tree and mean are summed up in fp32,
in an order that depends on the machine. Here they are the same on every one, so that they may
differ from its in their last bit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional

from graftlab.models.quantization.coding import Coding
from graftlab.models.quantization.kernels import dequantise_4bit
from graftlab.models.quantization.weight import in_pieces, is_traced

BLOCK = 64
SCALES = 256
"""Scales that share a scale of their own."""
SMALLEST = 1e-38
"""What a block of zeros is divided by."""
VALUES = (
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
    *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
    *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
    *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
)
"""What the sixteen codes stand for: quantiles of a normal distribution, and zero."""


def _dynamic_tree() -> Iterator[float]:
    """A decade for each leading zero, in twice as many steps as the one below it, of both signs."""
    yield from (0.0, 1.0)
    for decade in range(7):
        steps = 2**decade
        for step in range(steps):
            value = 10.0 ** (decade - 6) * (0.1 + 0.9 * (step + 0.5) / steps)
            yield from (-value, value)


TREE = tuple(sorted(_dynamic_tree()))
"""What the 256 codes of scales stand for."""


@dataclass(frozen=True)
class NF4Blocks(Coding):
    """Parts: codes (n / 2,) uint8 and scales (n / 64,) fp32; with `double`, in place of the scales
    their codes (n / 64,) uint8, the scales of these (n / 64 / 256,) fp32, and the mean () fp32.

    n is the number of values, rounded up to whole blocks. Codes of scales that came with a folder
    have what they stand for as a last part, (256,) fp32.
    """

    double: bool = False

    def allocate(self, shape: Sequence[int], device: torch.device) -> list[Tensor]:
        def room(*size: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.empty(size, dtype=dtype, device=device)

        blocks = -(-math.prod(shape) // BLOCK)
        codes = room(blocks * BLOCK // 2, dtype=torch.uint8)
        if not self.double:
            return [codes, room(blocks)]
        return [codes, room(blocks, dtype=torch.uint8), room(-(-blocks // SCALES)), room()]

    def encode(self, weight: Tensor, parts: Sequence[Tensor]) -> None:
        codes, *kept = parts
        values = weight.reshape(-1)
        if unfilled := -len(values) % BLOCK:
            values = functional.pad(values, (0, unfilled))
        blocks, packed = values.view(-1, BLOCK), codes.view(-1, BLOCK // 2)
        scales = blocks.new_empty(len(blocks)) if self.double else kept[0]
        edges = _middles(torch.tensor(VALUES)).tolist()
        for some in in_pieces(blocks, BLOCK):
            largest = blocks[some].abs().amax(1)
            nearest = _places(_scaled(blocks[some], largest), edges)
            packed[some] = nearest[:, 0::2] << 4 | nearest[:, 1::2]
            scales[some] = largest
        if self.double:
            _encode_scales(scales, *kept)

    def widen(self, parts: Sequence[Tensor], shape: torch.Size, dtype: torch.dtype) -> Tensor:
        codes, *kept = parts
        scales = _scales(*kept) if self.double else kept[0]
        blocks, size = codes.view(-1, BLOCK // 2), shape.numel()
        if (wide := dequantise_4bit(codes, scales, BLOCK, dtype)) is not None:
            return wide[:size].view(shape)
        pieces = in_pieces(blocks, BLOCK)
        if len(pieces) == 1:
            return _values(blocks, scales).to(dtype).view(-1)[:size].view(shape)
        wide = torch.empty(len(blocks), BLOCK, dtype=dtype, device=codes.device)
        for some in pieces:
            wide[some] = _values(blocks[some], scales[some])
        return wide.view(-1)[:size].view(shape)


def _values(blocks: Tensor, scales: Tensor) -> Tensor:
    """(blocks, 64) fp32: every byte looks up both of its values at once."""
    index = blocks.reshape(-1).int()
    if is_traced(blocks):
        values = _table(VALUES, blocks)
        pairs = torch.stack([values[index >> 4], values[index & 15]], dim=1)
    else:
        pairs = _pairs(blocks.device).index_select(0, index).view(torch.float32)
    return pairs.view(-1, BLOCK).mul_(scales[:, None])


@cache
def _pairs(device: torch.device) -> Tensor:
    """The two fp32 values of each byte, as one number of 64 bits: twice as fast to look up."""
    values, byte = torch.tensor(VALUES), torch.arange(256)
    both = torch.stack([values[byte >> 4], values[byte & 15]], dim=1)
    return both.view(torch.int64).view(256).to(device)


def _scaled(blocks: Tensor, largest: Tensor) -> Tensor:
    return (blocks * (1.0 / largest.clamp(min=SMALLEST))[:, None]).clamp_(-1, 1)


def _places(values: Tensor, edges: Sequence[float]) -> Tensor:
    """Between which edges values lie, as `bucketize` says it, in a tenth of its time."""
    places = torch.zeros_like(values, dtype=torch.uint8)
    for edge in edges:
        places += values > edge
    return places


def _encode_scales(scales: Tensor, codes: Tensor, largest: Tensor, mean: Tensor) -> None:
    mean.copy_(scales.double().mean())
    centred = functional.pad(scales - mean, (0, -len(scales) % SCALES)).view(-1, SCALES)
    torch.amax(centred.abs(), 1, out=largest)
    places = torch.bucketize(_scaled(centred, largest), _middles(_table(TREE, scales)))
    codes.copy_(places.view(-1)[: len(codes)])


def _scales(codes: Tensor, largest: Tensor, mean: Tensor, tree: Tensor | None = None) -> Tensor:
    values = (_table(TREE, codes) if tree is None else tree)[codes.int()]
    return values * largest.repeat_interleave(SCALES)[: len(codes)] + mean


def _middles(values: Tensor) -> Tensor:
    return (values[:-1] + values[1:]) / 2


def _table(values: tuple[float, ...], beside: Tensor) -> Tensor:
    """`values` where `beside` is; a graph gets constants of its own."""
    if is_traced(beside):
        return torch.tensor(values, device=beside.device)
    return _kept_table(values, beside.device)


@cache
def _kept_table(values: tuple[float, ...], device: torch.device) -> Tensor:
    return torch.tensor(values, device=device)
