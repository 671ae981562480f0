"""Core ML's blob storage, version 2: how `.fmadapter` and `.mlpackage` keep their weights.

    0    u32 number of records, u32 version 2, zeros to 64
    64   per tensor, at a multiple of 64: a record of 64 bytes
           u32 0xDEADBEEF, u32 dtype, u64 bytes, u64 offset of the data, u64 padding bits, zeros
         then the data at once; the next record at the next multiple of 64, nothing after the last

Little-endian throughout. Byte for byte what coremltools writes (`_BlobStorageWriter`).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from graftlab.errors import ModelError

if TYPE_CHECKING:
    import numpy as np

ALIGNMENT = 64
VERSION = 2
SENTINEL = 0xDEADBEEF
FP16 = 1
BITS = {1: 16, 2: 32, 3: 8, 4: 8, 5: 16, 6: 16, 7: 16, 8: 4, 9: 1, 10: 2, 11: 4, 12: 3, 13: 6,
        14: 32, 15: 32}  # fmt: skip
"""dtype -> bits of an element: fp16, fp32, uint8, int8, bf16, int16, uint16, int4, uint1 ..."""

_HEADER = struct.Struct("<II56x")
_RECORD = struct.Struct("<IIQQQ32x")


@dataclass(frozen=True, slots=True)
class Record:
    """One tensor in the file: dtype, and where its bytes lie."""

    dtype: int
    num_bytes: int
    offset: int
    padding_bits: int = 0

    @property
    def place(self) -> int:
        """Where the record itself lies: this, not the data, is what a MIL program points at."""
        return self.offset - _RECORD.size

    @property
    def elements(self) -> int:
        return (8 * self.num_bytes - self.padding_bits) // BITS[self.dtype]


class BlobError(ModelError):
    """A file that is not blob storage; `rule` is the rule of the format that it breaks."""

    def __init__(self, rule: str, message: str) -> None:
        super().__init__(message)
        self.rule = rule


def write(file: BinaryIO, arrays: Iterable[np.ndarray]) -> list[Record]:
    """Write fp16 arrays one after the other; `file` is seekable. Returns their records."""
    import numpy as np

    file.write(_HEADER.pack(0, VERSION))
    place, records = _HEADER.size, []
    for array in arrays:
        assert array.dtype == np.float16, "adapters are stored in half precision"
        data = np.ascontiguousarray(array, dtype="<f2").tobytes()
        gap = -place % ALIGNMENT
        record = Record(FP16, len(data), place + gap + _RECORD.size)
        file.write(b"\0" * gap + _packed(record) + data)
        place = record.offset + len(data)
        records.append(record)
    file.seek(0)
    file.write(_HEADER.pack(len(records), VERSION))
    file.seek(0, 2)
    return records


def read(path: Path) -> list[Record]:
    """The records of a file, every rule of the format checked. Raises BlobError for the first."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(_HEADER.size)
        if len(start) < _HEADER.size:
            raise BlobError("header", f"{path.name} has {size} bytes: too short for a header.")
        count, version = _HEADER.unpack(start)
        if version != VERSION:
            raise BlobError("version", f"{path.name} is of version {version}, not {VERSION}.")
        if any(start[8:]):
            raise BlobError("header", f"{path.name}: its header is not zero after 8 bytes.")
        records: list[Record] = []
        end = _HEADER.size
        for index in range(count):
            place = end + -end % ALIGNMENT
            records.append(_record(file, path, index, place=place, end=end))
            end = records[-1].offset + records[-1].num_bytes
            if end > size:
                raise BlobError(
                    "truncated", f"{path.name} is cut off in record {index}: {size} bytes of {end}."
                )
    if end != size:
        raise BlobError(
            "count", f"{path.name} has {size - end} bytes after the last of its {count} records."
        )
    return records


def _record(file: BinaryIO, path: Path, index: int, *, place: int, end: int) -> Record:
    """Record `index`, expected at `place` behind data that ends at `end`."""
    file.seek(end)
    gap, content = file.read(place - end), file.read(_RECORD.size)
    if len(content) < _RECORD.size:
        raise BlobError("truncated", f"{path.name} ends before record {index}.")
    sentinel, dtype, num_bytes, offset, padding = _RECORD.unpack(content)
    if sentinel != SENTINEL:
        raise BlobError(
            "record", f"{path.name}: there is no record {index} at byte {place} (0x{sentinel:08X})."
        )
    if any(gap):
        raise BlobError("padding", f"{path.name}: what fills up before record {index} is not zero.")
    if dtype not in BITS:
        raise BlobError("dtype", f"{path.name}: record {index} has the unknown dtype {dtype}.")
    if offset != place + _RECORD.size:
        raise BlobError(
            "offset", f"{path.name}: record {index} says its data lies at {offset}, it is at "
            f"{place + _RECORD.size}."
        )  # fmt: skip
    if padding > 7 or (8 * num_bytes - padding) % BITS[dtype]:
        raise BlobError("size", f"{path.name}: record {index} is no whole number of elements.")
    return Record(dtype, num_bytes, offset, padding)


def load(path: Path, record: Record) -> np.ndarray:
    """The data of an fp16 record as a flat array mapped from the file."""
    import numpy as np

    assert record.dtype == FP16, record
    return np.memmap(path, dtype="<f2", mode="r", offset=record.offset, shape=(record.elements,))


def load_codes(path: Path, record: Record) -> np.ndarray:
    """The elements of a record of unsigned numbers of 1 to 8 bits, flat, one byte each."""
    import numpy as np

    bits = BITS[record.dtype]
    raw = np.fromfile(path, dtype=np.uint8, count=record.num_bytes, offset=record.offset)
    flags = np.unpackbits(raw, bitorder="little")[: record.elements * bits]
    return np.packbits(flags.reshape(-1, bits), axis=1, bitorder="little").ravel()


def _packed(record: Record) -> bytes:
    return _RECORD.pack(
        SENTINEL, record.dtype, record.num_bytes, record.offset, record.padding_bits
    )
