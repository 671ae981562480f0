"""What a folder of safetensors holds, read from the file headers: names, shapes, places.

    model.safetensors    8 bytes: header length | header: JSON | data
    header               {"model.layers.0.mlp.up_proj.weight": {"dtype", "shape", "data_offsets"}}

Nothing heavy is imported and no weight is read, so the door can answer at once.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graftlab.errors import ModelError
from graftlab.files import reading

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
LONGEST_HEADER = 100_000_000  # the format's own limit, in bytes


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
        shards = sorted(set(read_json(folder / INDEX).get("weight_map", {}).values()))
        absent = [shard for shard in shards if not (folder / shard).is_file()]
        if absent or not shards:
            raise ModelError(f"{folder}: {INDEX} names files that are not there: {absent[:3]}")
        return [folder / shard for shard in shards]
    if any(folder.glob("*.bin")) or any(folder.glob("*.pth")):
        raise ModelError(
            f"{folder} holds weights in a pickle format, which can run code when read. "
            "Convert them once: AutoModelForCausalLM.from_pretrained(DIR).save_pretrained(NEW)"
        )
    raise ModelError(f"{folder} holds no {SINGLE} and no {INDEX}: is it a model folder?")


def stored_tensors(folder: Path) -> dict[str, StoredTensor]:
    """Every tensor of the folder by name. Raises ModelError for a broken file."""
    return {
        name: tensor for file in weight_files(folder) for name, tensor in file_tensors(file).items()
    }


def file_tensors(file: Path) -> dict[str, StoredTensor]:
    """Every tensor of one safetensors file by name. Raises ModelError for a broken file."""
    try:
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > LONGEST_HEADER:
                raise ValueError("its header is longer than the format allows")
            header = reading.load_json(stream.read(length))
        header.pop("__metadata__", None)
        start = 8 + length
        tensors = {name: _stored(file, entry, start) for name, entry in header.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
        raise ModelError(f"{file} is not a readable safetensors file ({error}).") from error
    end = max((t.offset + t.num_bytes for t in tensors.values()), default=start)
    if file.stat().st_size < end:
        raise ModelError(f"{file} is cut off: {file.stat().st_size} bytes of {end}. Copy it again.")
    return tensors


def _stored(file: Path, entry: dict[str, Any], start: int) -> StoredTensor:
    begin, end = entry["data_offsets"]
    return StoredTensor(file, entry["dtype"], tuple(entry["shape"]), start + begin, end - begin)


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object from a model folder. Raises ModelError naming the file."""
    try:
        content = reading.read_json(file)
    except (OSError, ValueError) as error:
        raise ModelError(f"{file} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise ModelError(f"{file} is not a JSON object.")
    return content
