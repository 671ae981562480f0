"""A model's safetensors files written anew, one tensor in memory at a time.

model-00001-of-00002.safetensors    8 bytes: header length | header: JSON | data
model.safetensors.index.json        {"metadata": {"total_size"}, "weight_map": {NAME: FILE}}
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from graftlab.models.weights import INDEX, SINGLE, WIDTHS, read_json

if TYPE_CHECKING:
    from torch import Tensor

NAMES = {"fp32": "F32", "bf16": "BF16", "fp16": "F16"}
"""Our names of types -> those in a file's header."""
FLOATS = ("F64", *NAMES.values())


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor of a file to be written."""

    dtype: str
    """As the header names it."""
    shape: tuple[int, ...]

    @property
    def num_bytes(self) -> int:
        return WIDTHS[self.dtype] * math.prod(self.shape)


def write_shard(file: Path, entries: Mapping[str, Entry], tensors: Iterable[Tensor]) -> None:
    """Write a file of `entries`; `tensors` are their contents in the same order, on the CPU."""
    import torch

    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, entry in entries.items():
        start, end = end, end + entry.num_bytes
        offsets = [start, end]
        header[name] = {"dtype": entry.dtype, "shape": entry.shape, "data_offsets": offsets}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors start at a multiple of eight
    with file.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        for entry, tensor in zip(entries.values(), tensors, strict=True):
            data = tensor.contiguous().reshape(-1).view(torch.uint8).numpy()
            assert data.nbytes == entry.num_bytes, f"{entry} is not what is written"
            stream.write(data.data)


def write_index(source: Path, folder: Path, shards: Mapping[str, Mapping[str, Entry]]) -> None:
    """Write the index of `shards` (file -> its tensors), with what else the one in `source` says.

    A folder whose weights are one file has none, and gets none.
    """
    if list(shards) == [SINGLE]:
        return
    entries = [entry for tensors in shards.values() for entry in tensors.values()]
    index = read_json(source / INDEX)
    metadata = {**(index.get("metadata") or {}), "total_size": sum(e.num_bytes for e in entries)}
    if "total_parameters" in metadata:
        metadata["total_parameters"] = sum(math.prod(entry.shape) for entry in entries)
    places = {name: file for file, tensors in shards.items() for name in tensors}
    index |= {"metadata": metadata, "weight_map": dict(sorted(places.items()))}
    (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
