"""What a GGUF file holds, read from its header: metadata, and where each tensor lies.

    "GGUF" | version | counts | key, type, value ... | name, shape, type, offset ... | padding
    data: every tensor at a multiple of general.alignment

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. A model may be split over
files, NAME-00001-of-00003.gguf, of which the first has the metadata. Everything is data: nothing
here, and nothing that is made of it, runs code of the file.
"""

from __future__ import annotations

import math
import mmap
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from graftlab.errors import ModelError, did_you_mean
from graftlab.models.weights import LFS, StoredTensor

MAGIC = b"GGUF"
VERSIONS = (2, 3)
SHARD = re.compile(r"^(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf$")
MOST_DIMENSIONS = 4

KINDS = {
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    20: ("IQ4_NL", 32, 18),
    23: ("IQ4_XS", 256, 136),
    30: ("BF16", 1, 2),
}
"""Number of a type -> name, weights of a block, bytes of a block; those that can be read."""
OTHERS = {
    **dict(enumerate(("IQ2_XXS", "IQ2_XS", "IQ3_XXS", "IQ1_S"), 16)),
    **dict(enumerate(("IQ3_S", "IQ2_S"), 21)),
    **dict(enumerate(("I8", "I16", "I32", "I64", "F64", "IQ1_M"), 24)),
    **dict(enumerate(("TQ1_0", "TQ2_0"), 34)),
    **dict(enumerate(("MXFP4", "NVFP4"), 39)),
}
"""Types that are refused by their names."""

_NUMBERS = dict(zip((*range(8), 10, 11, 12), "BbHhIif?Qqd", strict=True))
"""Number of a metadata type -> its letter in `struct`."""
_STRING, _ARRAY = 8, 9


@dataclass(frozen=True, slots=True)
class GGUFFile:
    """A model's metadata and tensors, from one file or all files it is split into."""

    path: Path
    """The file with the metadata."""
    files: tuple[Path, ...]
    metadata: Mapping[str, Any]
    tensors: Mapping[str, StoredTensor]
    """By llama.cpp's names; `dtype` is the name of the type, `shape` has rows first."""

    @property
    def architecture(self) -> str:
        return str(self.metadata.get("general.architecture"))


def read_gguf(path: Path) -> GGUFFile:
    """The header of a file and of all its further parts, read once as long as they stay as they
    are. Raises ModelError for what is no GGUF, is cut short, or holds types that cannot be read.
    """
    found = [_read(file, *_state(file)) for file in shards(path)]
    tensors: dict[str, StoredTensor] = {}
    for number, part in enumerate(found):
        if (said := part.metadata.get("split.no", number)) != number:
            raise ModelError(
                f"{part.path} is not the part of a model that its name says (split.no is {said!r}, "
                "counted from 0): was it renamed? Copy the parts again under their own names."
            )
        if twice := next((name for name in part.tensors if name in tensors), None):
            raise ModelError(f"{part.path} holds {twice}, and so does another part of the model.")
        tensors |= part.tensors
    first = found[0]
    told = first.metadata.get("split.tensors.count", len(tensors))
    if told != len(tensors):
        raise ModelError(
            f"{path}: its parts hold {len(tensors)} tensors, and the first says {told}: parts of "
            "different models? Copy them again."
        )
    return GGUFFile(first.path, tuple(part.path for part in found), first.metadata, tensors)


def shards(path: Path) -> list[Path]:
    """All files of the model that `path` is a part of. Raises ModelError naming the missing."""
    found = SHARD.match(path.name)
    if found is None:
        return [path]
    count = int(found["count"])
    if not 1 <= int(found["number"]) <= count:
        raise ModelError(f"{path} cannot be a part of a model: it would be none of {count} files.")
    names = [f"{found['stem']}-{n:05}-of-{found['count']}.gguf" for n in range(1, count + 1)]
    absent = [name for name in names if not path.with_name(name).is_file()]
    if absent:
        raise ModelError(
            f"{path} is a part of a model in {count} files, of which {len(absent)} are not beside "
            f"it: {', '.join(absent[:3])}. Copy or download them too."
        )
    return [path.with_name(name) for name in names]


def existing_file(path: str) -> Path:
    """The file that `model.path` names, in full. Raises ModelError, with one that is near."""
    file = Path(path).expanduser()
    if file.is_dir():
        inside = sorted(p.name for p in file.glob("*.gguf"))
        hint = f" It holds {', '.join(inside[:4])}." if inside else ""
        raise ModelError(f"model.path={path} is a folder: name the file, DIR/NAME.gguf.{hint}")
    if not file.is_file():
        beside = [p.name for p in file.parent.glob("*.gguf")] if file.parent.is_dir() else []
        hint = did_you_mean(file.name, beside)
        raise ModelError(f"model.path={path}: there is no such file.{hint}")
    return file.resolve()


def map_file(file: Path) -> np.ndarray:
    """The bytes of a file in memory, as far as they are read; writing to them changes no file."""
    return np.memmap(file, np.uint8, mode="c")


def _state(file: Path) -> tuple[int, int]:
    try:
        status = file.stat()
    except OSError as error:
        raise ModelError(f"{file} cannot be read ({error.strerror}).") from error
    return status.st_size, status.st_mtime_ns


@lru_cache(maxsize=8)
def _read(path: Path, size: int, modified: int) -> GGUFFile:
    """One file, without its further parts; `modified` makes another version another key."""
    with path.open("rb") as stream:
        _require_gguf(path, stream.read(len(LFS)))
        with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
            cursor = _Cursor(data)
            try:
                return _parse(path, cursor, size)
            except EOFError as error:
                raise ModelError(
                    f"{path} is cut short: it ends within its header. Copy it again."
                ) from error
            except (ValueError, struct.error) as error:
                raise ModelError(f"{path} is not a readable GGUF file: {error}.") from error


def _require_gguf(path: Path, start: bytes) -> None:
    if start == LFS:
        raise ModelError(
            f"{path} is a Git LFS pointer, not the weights: run `git lfs pull` there, or download "
            "the model again."
        )
    if start[:4] != MAGIC:
        what = "is empty" if not start else f"begins with {start[:4]!r}, not {MAGIC!r}"
        raise ModelError(f"{path} is not a GGUF file: it {what}.")
    if len(start) < 8:
        raise ModelError(f"{path} is cut short: it ends within its header. Copy it again.")
    version = int.from_bytes(start[4:8], "little")
    if int.from_bytes(start[4:8], "big") in VERSIONS:
        raise ModelError(f"{path} is a GGUF file of a big-endian machine; only little is read.")
    if version not in VERSIONS:
        raise ModelError(
            f"{path} is of version {version} of the format; {' and '.join(map(str, VERSIONS))} "
            "are read. Convert the model anew with a current llama.cpp."
        )


def _parse(path: Path, cursor: _Cursor, size: int) -> GGUFFile:
    cursor.at = 8
    num_tensors, num_entries = cursor.number("Q"), cursor.number("Q")
    metadata: dict[str, Any] = {}
    for _ in range(num_entries):
        key = cursor.text()
        metadata[key] = cursor.value(cursor.number("I"))
    listed = [_entry(cursor) for _ in range(num_tensors)]
    step = metadata.get("general.alignment", 32)
    if not isinstance(step, int) or step < 8 or step % 8:
        raise ValueError(f"general.alignment is {step!r}, no multiple of 8")
    start = -(-cursor.at // step) * step
    tensors = dict(_placed(path, listed, start))
    if len(tensors) < num_tensors:
        raise ValueError("a tensor is listed twice")
    _require_apart(tensors, step)
    end = max((t.offset + t.num_bytes for t in tensors.values()), default=start)
    if size < end:
        raise ModelError(f"{path} is cut short: {size:,} bytes of {end:,}. Copy it again.")
    return GGUFFile(path, (path,), metadata, tensors)


def _require_apart(tensors: Mapping[str, StoredTensor], step: int) -> None:
    """Raise ValueError unless tensors begin at multiples of `step`, each behind the one before."""
    end, before = 0, ""
    for name, tensor in sorted(tensors.items(), key=lambda item: item[1].offset):
        if tensor.offset % step:
            raise ValueError(f"{name} begins at no multiple of general.alignment, {step}")
        if tensor.offset < end:
            raise ValueError(f"{name} begins within {before}")
        end, before = tensor.offset + tensor.num_bytes, name


def _entry(cursor: _Cursor) -> tuple[str, tuple[int, ...], int, int]:
    """Name, shape with rows first, number of the type, and offset of a tensor."""
    name, dimensions = cursor.text(), cursor.number("I")
    if dimensions > MOST_DIMENSIONS:
        raise ValueError(f"{name} has {dimensions} dimensions")
    shape = tuple(cursor.number("Q") for _ in range(dimensions))[::-1]
    return name, shape, cursor.number("I"), cursor.number("Q")


def _placed(
    path: Path, listed: list[tuple[str, tuple[int, ...], int, int]], start: int
) -> Iterator[tuple[str, StoredTensor]]:
    kinds = {kind for *_, kind, _ in listed}
    if unknown := sorted(OTHERS.get(kind, f"number {kind}") for kind in kinds - KINDS.keys()):
        known = ", ".join(name for name, *_ in KINDS.values())
        raise ModelError(
            f"{path} holds weights of the type {', '.join(unknown)}, which cannot be read; these "
            f"can: {known}. Take another file of the model, such as its Q4_K_M or Q8_0."
        )
    for name, shape, kind, offset in listed:
        label, block, num_bytes = KINDS[kind]
        values = math.prod(shape)
        if shape and shape[-1] % block:
            raise ValueError(f"{name} has rows of {shape[-1]}, and {label} blocks of {block}")
        yield (
            name,
            StoredTensor(path, label, shape, start + offset, values // block * num_bytes),
        )


class _Cursor:
    """A place in the header, from which values are read one after the other.

    Raises EOFError at the end of the data, ValueError for what no value is.
    """

    def __init__(self, data: mmap.mmap) -> None:
        self.data, self.at, self.end = data, 0, len(data)

    def take(self, count: int) -> bytes:
        start, self.at = self.at, self.at + count
        if self.at > self.end:
            raise EOFError
        return self.data[start : self.at]

    def number(self, form: str) -> Any:
        form = f"<{form}"
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def text(self) -> str:
        return self.take(self.number("Q")).decode("utf-8", "replace")

    def value(self, kind: int) -> Any:
        if kind == _STRING:
            return self.text()
        if kind == _ARRAY:
            return self.array()
        if kind not in _NUMBERS:
            raise ValueError(f"a value is of the unknown type {kind}")
        return self.number(_NUMBERS[kind])

    def array(self) -> list[Any]:
        kind, count = self.number("I"), self.number("Q")
        if kind in _NUMBERS:
            form = np.dtype(f"<{_NUMBERS[kind]}")
            numbers: list[Any] = np.frombuffer(self.take(count * form.itemsize), form).tolist()
            return numbers
        if kind != _STRING:
            raise ValueError(f"an array is of the type {kind}")
        if count * 8 > self.end - self.at:
            raise EOFError
        return [self.text() for _ in range(count)]
