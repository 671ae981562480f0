"""A few values of weights that are stored as codes, for the fingerprint of a base.

They are those that codes stand for, in fp32: computed from wide weights, or from codes that came
with the folder. Blocks of 64 (nf4) and rows (int8) are coded by themselves, so a few suffice.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from graftlab.models.quantization.base import Codes
from graftlab.models.quantization.int8_rows import LARGEST, Int8Rows
from graftlab.models.quantization.nf4 import NF4
from graftlab.models.quantization.nf4_blocks import BLOCK, SCALES, NF4Blocks
from graftlab.models.quantization.packed import Packed
from graftlab.models.weights import StoredTensor, torch_dtype

PLACES = 8  # sampled places in a large weight
RUN = 2048  # values at each of them, in whole blocks or rows


def hash_wide(digest: hashlib._Hash, tensors: Mapping[str, StoredTensor], choice: Codes) -> None:
    """Add weights by name as `choice` would store them.

    Scales that are codes themselves depend on all of a weight: here they are as they were before,
    and the choice's name tells them apart.
    """
    blocks = isinstance(choice, NF4)
    scheme = NF4Blocks() if blocks else Int8Rows()
    for name, stored in sorted(tensors.items()):
        size, row = math.prod(stored.shape), stored.shape[-1]
        unit = BLOCK if blocks else row
        _begin(digest, name, choice, stored.shape)
        places = _places(-(-size // unit), unit)
        runs = [(start * unit, min(count * unit, size - start * unit)) for start, count in places]
        values = _read(stored, runs).float()
        rows = values[None] if blocks else values.view(-1, row)
        _add(digest, scheme.quantise(rows, torch.float32).wide())


def hash_packed(digest: hashlib._Hash, weights: Mapping[str, Packed], own: Codes) -> None:
    """Add weights that came as codes, which are stored as `own` says."""
    for name, packed in sorted(weights.items()):
        _begin(digest, name, own, packed.shape)
        _add(digest, _values(packed))


def _values(packed: Packed) -> Tensor:
    out, into = packed.shape
    if packed.quant_map is None:
        places = _places(out, into)
        codes = _read(packed.codes, _times(places, into)).view(-1, into)
        scales = _read(packed.scales, places) / LARGEST
        return Int8Rows().widen([codes, scales], codes.shape, torch.float32)
    places = _places(out * into // BLOCK, BLOCK)
    codes, scales = _read(packed.codes, _times(places, BLOCK // 2)), _read(packed.scales, places)
    if packed.nested is not None:
        largest, table = (_read(part, [(0, math.prod(part.shape))]) for part in packed.nested)
        numbers = torch.cat([torch.arange(start, start + count) for start, count in places])
        scales = table[scales.int()] * largest[numbers // SCALES] + packed.offset
    shape = torch.Size((len(scales), BLOCK))
    return NF4Blocks().widen([codes, scales], shape, torch.float32)


def _times(places: list[tuple[int, int]], size: int) -> list[tuple[int, int]]:
    return [(start * size, count * size) for start, count in places]


def _places(units: int, unit: int) -> list[tuple[int, int]]:
    """(start, number) of the blocks or rows that are looked at, of `units` with `unit` values."""
    count = max(1, RUN // unit)
    if units <= PLACES * count:
        return [(0, units)]
    return [((units - count) * place // (PLACES - 1), count) for place in range(PLACES)]


def _read(stored: StoredTensor, runs: list[tuple[int, int]]) -> Tensor:
    """Values of a tensor, one run (start, number) behind the other."""
    dtype, found = torch_dtype(stored.dtype), bytearray()
    with stored.file.open("rb") as stream:
        for start, count in runs:
            stream.seek(stored.offset + start * dtype.itemsize)
            found += stream.read(count * dtype.itemsize)
    return torch.frombuffer(found, dtype=dtype)


def _begin(digest: hashlib._Hash, name: str, choice: Codes, shape: Iterable[int]) -> None:
    digest.update(f"\0{name}:{choice.title}:{tuple(shape)}\0".encode())


def _add(digest: hashlib._Hash, values: Tensor) -> None:
    digest.update(values.contiguous().numpy().tobytes())
