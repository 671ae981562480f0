"""What a folder of safetensors holds, read from the file headers: names, shapes, places.

    model.safetensors    8 bytes: header length | header: JSON | data
    header               {"model.layers.0.mlp.up_proj.weight": {"dtype", "shape", "data_offsets"}}

Nothing heavy is imported and no weight is read, so the door can answer at once.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftlab.errors import ModelError
from graftlab.files import reading

if TYPE_CHECKING:
    import torch
    from torch import Tensor

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
LONGEST_HEADER = 100_000_000  # the format's own limit, in bytes
LFS = b"version https://git-lfs"
"""What stands in the place of a large file that git has not fetched."""
WIDTHS = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2"), 1),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 2),
    **dict.fromkeys(("U32", "I32", "F32"), 4),
    **dict.fromkeys(("U64", "I64", "F64"), 8),
}
"""Bytes of one value; other types are not judged."""


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """One tensor of a file: `num_bytes` bytes at `offset` from the file's start."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int
    num_bytes: int


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a model folder. Raises ModelError saying what is missing."""
    if (folder / SINGLE).is_file():
        return [folder / SINGLE]
    if (folder / INDEX).is_file():
        return _shards(folder)
    raise ModelError(f"{folder} {_what_instead(folder)}")


def _shards(folder: Path) -> list[Path]:
    named = read_json(folder / INDEX).get("weight_map")
    if not isinstance(named, dict) or not all(isinstance(n, str) for n in named.values()):
        raise ModelError(f"{folder / INDEX} lists no files under weight_map: it is damaged.")
    shards = sorted(set(named.values()))
    absent = [shard for shard in shards if not (folder / shard).is_file()]
    if absent or not shards:
        raise ModelError(
            f"{folder}: {INDEX} names {len(shards)} files, of which {len(absent)} are not there "
            f"({', '.join(absent[:3])}). Copy or download them again."
        )
    return [folder / shard for shard in shards]


def _what_instead(folder: Path) -> str:
    """What a folder without weights of ours holds, and what helps."""

    def some(*patterns: str) -> bool:
        return any(next(folder.glob(pattern), None) for pattern in patterns)

    if some("model-*-of-*.safetensors"):
        return f"holds parts of a model but not {INDEX}, which says what lies where: copy it too."
    if (folder / "adapter_config.json").is_file():
        return "is an adapter, not a model: give model.path=BASE (and lora.from=ADAPTER)."
    if some("*.gguf"):
        return (
            "holds a GGUF file and no safetensors: model=gguf model.path=FILE.gguf trains on the "
            "file itself."
        )
    if some("*.bin", "*.pth", "*.pt"):
        return (
            "holds weights in a pickle format, which can run code when read. "
            "Convert them once: AutoModelForCausalLM.from_pretrained(DIR).save_pretrained(NEW)"
        )
    others = sorted(file.name for file in folder.glob("*.safetensors"))[:3]
    beside = f" (but {', '.join(others)}, written by another program)" if others else ""
    return f"holds no {SINGLE} and no {INDEX}{beside}: is it a model folder?"


def stored_tensors(folder: Path) -> dict[str, StoredTensor]:
    """Every tensor of the folder by name. Raises ModelError for a broken file."""
    return {
        name: tensor for file in weight_files(folder) for name, tensor in file_tensors(file).items()
    }


def file_tensors(file: Path) -> dict[str, StoredTensor]:
    """Every tensor of one safetensors file by name. Raises ModelError for a broken file."""
    size = file.stat().st_size
    try:
        with file.open("rb") as stream:
            start = stream.read(8)
            if start + stream.read(len(LFS) - 8) == LFS:
                raise ModelError(
                    f"{file} is a Git LFS pointer, not the weights: run `git lfs pull` there, or "
                    "download the model again."
                )
            (length,) = struct.unpack("<Q", start)
            if size < 8 + length <= 8 + LONGEST_HEADER:
                raise ModelError(f"{file} is cut off: it ends within its header. Copy it again.")
            if length > LONGEST_HEADER:
                raise ValueError("its header is longer than the format allows")
            stream.seek(8)
            header = reading.load_json(stream.read(length))
        header.pop("__metadata__", None)
        tensors = {name: _stored(file, entry, 8 + length) for name, entry in header.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
        raise ModelError(f"{file} is not a readable safetensors file ({error}).") from error
    end = max((t.offset + t.num_bytes for t in tensors.values()), default=8 + length)
    if size < end:
        raise ModelError(f"{file} is cut off: {size} bytes of {end}. Copy it again.")
    return tensors


def read_tensor(name: str, stored: StoredTensor) -> Tensor:
    """The values of one tensor, on the CPU; the file stays mapped as long as they are used."""
    from safetensors import safe_open

    with safe_open(stored.file, framework="pt") as file:
        tensor: Tensor = file.get_tensor(name)
        return tensor


def copy_tensor(stored: StoredTensor) -> Tensor:
    """The values of one tensor, on the CPU, in memory of their own. Raises OSError."""
    import torch

    values = torch.empty(stored.shape, dtype=torch_dtype(stored.dtype))
    left = memoryview(values.reshape(-1).view(torch.uint8).numpy().data)
    with stored.file.open("rb", buffering=0) as stream:
        stream.seek(stored.offset)
        while len(left):
            got = stream.readinto(left)
            if not got:
                raise OSError(f"{stored.file} ends before its tensors do")
            left = left[got:]
    return values


def torch_dtype(name: str) -> torch.dtype:
    """The type of torch that a header calls `name`. Raises ModelError for one that it lacks."""
    import torch

    types = {
        "F64": torch.float64,
        "F32": torch.float32,
        "F16": torch.float16,
        "BF16": torch.bfloat16,
        "I64": torch.int64,
        "I32": torch.int32,
        "I16": torch.int16,
        "I8": torch.int8,
        "U8": torch.uint8,
        "BOOL": torch.bool,
    }
    if name not in types:
        raise ModelError(f"a tensor of type {name} is not read")
    return types[name]


def _stored(file: Path, entry: dict[str, Any], start: int) -> StoredTensor:
    begin, end = entry["data_offsets"]
    dtype, shape = entry["dtype"], tuple(entry["shape"])
    if (dtype in WIDTHS and end - begin != WIDTHS[dtype] * math.prod(shape)) or begin < 0:
        raise ValueError(f"{dtype} {list(shape)} does not take {end - begin} bytes")
    return StoredTensor(file, dtype, shape, start + begin, end - begin)


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object from a model folder. Raises ModelError naming the file."""
    try:
        content = reading.read_json(file)
    except (OSError, ValueError) as error:
        raise ModelError(f"{file} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise ModelError(f"{file} is not a JSON object.")
    return content


def misfits(state: Mapping[str, Any], wanted: Mapping[str, Sequence[int]]) -> list[str]:
    """What keeps tensors from being those of these names and shapes, a line each."""
    problems = [f"{name} is missing" for name in wanted if name not in state]
    problems += [f"{name} is not part of it" for name in state if name not in wanted]
    return problems + [
        f"{name} has shape {tuple(state[name].shape)}, not {tuple(shape)}"
        for name, shape in wanted.items()
        if name in state and tuple(state[name].shape) != tuple(shape)
    ]
