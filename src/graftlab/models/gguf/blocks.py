"""How the blocks of a GGUF file become values; every step of it can be compiled.

    Q4_0    32 weights    d (fp16) | 16 bytes                       d (q - 8)
    Q4_1    32            d, m | 16 bytes                           d q + m
    Q8_0    32            d | 32 signed bytes                       d q
    Q4_K    256           d, dmin | 12 bytes | 128 bytes            (d s) q - dmin m, s and m per 32
    Q6_K    256           128 low | 64 high | 16 scales | d         (d s) (q - 32), s per 16

A byte of codes holds one of the first half of its group in its low bits and one of the second half
in its high bits. Products of scales and codes fit into fp32's 24 bits, so that values are those of
ggml and gguf-py to the bit, in whichever order they are computed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from graftlab.models.gguf.file import KINDS
from graftlab.models.quantization.weight import Scheme, in_pieces

PLAIN = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
"""Types that are torch's own."""
IQ4_LEVELS = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)
"""The values that the codes of IQ4_NL and IQ4_XS stand for, in units of the scale."""
ONES = 0x0101010101010101
"""A byte times this is eight times that byte."""
DIAGONAL = 0x8040201008040201 - 2**64
"""Bit k of byte k, in 64 bits with a sign."""
_SIZES = {name: (block, num_bytes) for name, block, num_bytes in KINDS.values()}


@dataclass(frozen=True)
class Blocks(Scheme):
    """Rows of blocks, as they lie in a GGUF file: one part, (out, bytes of a row)."""

    by_rows: ClassVar[bool] = True

    kind: str
    """The name of the type, such as Q4_K."""

    def widen(self, parts: Sequence[Tensor], shape: torch.Size, dtype: torch.dtype) -> Tensor:
        rows = parts[0]
        if self.kind in PLAIN:
            return rows.view(PLAIN[self.kind]).to(dtype)
        values, (block, num_bytes) = _VALUES[self.kind], _SIZES[self.kind]
        blocks = rows.reshape(-1, num_bytes)
        pieces = in_pieces(blocks, block)
        if len(pieces) == 1:
            return values(blocks).reshape(shape).to(dtype)
        wide = torch.empty(len(blocks), block, dtype=dtype, device=rows.device)
        for some in pieces:
            wide[some] = values(blocks[some]).reshape(-1, block)
        return wide.view(shape)


def _half(blocks: Tensor, start: int) -> Tensor:
    """The fp16 number at a place of every block, in fp32: (n, 1)."""
    return blocks[:, start : start + 2].view(torch.float16).float()


def _fields(codes: Tensor, bits: int) -> Tensor:
    """All low fields of `bits` bits, then the next higher ones: (..., w) -> (..., 8 / bits, w).

    Eight codes are cut out at a time where w is a multiple of eight.
    """
    most = (1 << bits) - 1
    if codes.shape[-1] % 8 == 0:
        # A copy, as a number of 64 bits has to lie where its size divides the address.
        codes = codes.clone(memory_format=torch.contiguous_format).view(torch.int64)
        most *= ONES
    fields = [(codes >> shift) & most for shift in range(0, 8, bits)]
    return torch.stack(fields, dim=-2).view(torch.uint8)


def _nibbles(codes: Tensor) -> Tensor:
    """(n, 16) -> (n, 32)"""
    return _fields(codes, 4).view(len(codes), -1)


def _fifth_bits(packed: Tensor) -> Tensor:
    """The bits of four bytes as the fifth of 32 codes: (n, 4) -> (n, 32)."""
    bits = packed.long() * ONES & DIAGONAL
    # 0 or 2^k in byte k; with 127 added, its highest bit says which.
    return (((bits + 127 * ONES) >> 3) & (16 * ONES)).view(torch.uint8)


def _q4_0(blocks: Tensor) -> Tensor:
    return _nibbles(blocks[:, 2:]).view(torch.int8).sub_(8).float().mul_(_half(blocks, 0))


def _q4_1(blocks: Tensor) -> Tensor:
    return _nibbles(blocks[:, 4:]).float().mul_(_half(blocks, 0)).add_(_half(blocks, 2))


def _q5_0(blocks: Tensor) -> Tensor:
    codes = _nibbles(blocks[:, 6:]) | _fifth_bits(blocks[:, 2:6])
    return codes.view(torch.int8).sub_(16).float().mul_(_half(blocks, 0))


def _q5_1(blocks: Tensor) -> Tensor:
    codes = _nibbles(blocks[:, 8:]) | _fifth_bits(blocks[:, 4:8])
    return codes.float().mul_(_half(blocks, 0)).add_(_half(blocks, 2))


def _q8_0(blocks: Tensor) -> Tensor:
    return blocks[:, 2:].view(torch.int8).float().mul_(_half(blocks, 0))


def _iq4_nl(blocks: Tensor) -> Tensor:
    return _levels(_nibbles(blocks[:, 2:])).mul_(_half(blocks, 0))


def _iq4_xs(blocks: Tensor) -> Tensor:
    low = _fields(blocks[:, 4:8], 4).transpose(-1, -2).reshape(-1, 8)
    high = _fields(blocks[:, 2:4], 2).transpose(-1, -2).reshape(-1, 8)
    scales = _half(blocks, 0) * (low | (high << 4)).float().sub_(32)
    codes = _fields(blocks[:, 8:].reshape(-1, 8, 16), 4).reshape(-1, 8, 32)
    return _levels(codes).mul_(scales.unsqueeze(-1))


def _levels(codes: Tensor) -> Tensor:
    levels = torch.tensor(IQ4_LEVELS, dtype=torch.float32, device=codes.device)
    return levels.index_select(0, codes.reshape(-1).int()).reshape(codes.shape)


def _scales_and_minima(packed: Tensor) -> tuple[Tensor, Tensor]:
    """Eight scales and eight minima of six bits, from 12 bytes: (n, 8) each."""
    words = packed.clone(memory_format=torch.contiguous_format).view(torch.int32)
    first, second, third = words.unbind(1)  # of four bytes each
    low, high, six = 0x0F0F0F0F, 0x30303030, 0x3F3F3F3F
    scales = [first & six, (third & low) | ((first >> 2) & high)]
    minima = [second & six, ((third >> 4) & low) | ((second >> 2) & high)]
    found = torch.stack([*scales, *minima], dim=1).view(torch.uint8)
    return found[:, :8], found[:, 8:]


def _q2_k(blocks: Tensor) -> Tensor:
    scales = _half(blocks, 80) * (blocks[:, :16] & 15)
    minima = _half(blocks, 82) * (blocks[:, :16] >> 4)
    codes = _fields(blocks[:, 16:80].reshape(-1, 2, 32), 2).reshape(-1, 16, 16)
    return codes.float().mul_(scales.unsqueeze(-1)).sub_(minima.unsqueeze(-1))


def _q3_k(blocks: Tensor) -> Tensor:
    low = _fields(blocks[:, 96:104], 4).reshape(-1, 16)
    high = _fields(blocks[:, 104:108], 2).reshape(-1, 16)
    scales = _half(blocks, 108) * (low | (high << 4)).float().sub_(32)
    codes = _fields(blocks[:, 32:96].reshape(-1, 2, 32), 2).reshape(-1, 16, 16)
    third = _fields(blocks[:, :32], 1).reshape(-1, 16, 16)
    return (codes | (third << 2)).float().sub_(4).mul_(scales.unsqueeze(-1))


def _q4_k(blocks: Tensor) -> Tensor:
    return _scaled_by_32(blocks, _fields(blocks[:, 16:].reshape(-1, 4, 32), 4))


def _q5_k(blocks: Tensor) -> Tensor:
    low = _fields(blocks[:, 48:].reshape(-1, 4, 32), 4).reshape(-1, 8, 32)
    return _scaled_by_32(blocks, low | (_fields(blocks[:, 16:48], 1) << 4))


def _scaled_by_32(blocks: Tensor, codes: Tensor) -> Tensor:
    scales, minima = _scales_and_minima(blocks[:, 4:16])
    scaled = codes.reshape(-1, 8, 32).float().mul_((_half(blocks, 0) * scales).unsqueeze(-1))
    return scaled.sub_((_half(blocks, 2) * minima).unsqueeze(-1))


def _q6_k(blocks: Tensor) -> Tensor:
    low = _fields(blocks[:, :128].reshape(-1, 2, 64), 4).reshape(-1, 16, 16)
    high = _fields(blocks[:, 128:192].reshape(-1, 2, 32), 2).reshape(-1, 16, 16)
    scales = _half(blocks, 208) * blocks[:, 192:208].view(torch.int8)
    return (low | (high << 4)).float().sub_(32).mul_(scales.unsqueeze(-1))


_VALUES: dict[str, Callable[[Tensor], Tensor]] = {
    "Q4_0": _q4_0,
    "Q4_1": _q4_1,
    "Q5_0": _q5_0,
    "Q5_1": _q5_1,
    "Q8_0": _q8_0,
    "Q2_K": _q2_k,
    "Q3_K": _q3_k,
    "Q4_K": _q4_k,
    "Q5_K": _q5_k,
    "Q6_K": _q6_k,
    "IQ4_NL": _iq4_nl,
    "IQ4_XS": _iq4_xs,
}
"""Blocks (n, bytes) -> their values in fp32, in order."""
