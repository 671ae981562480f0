"""A GGUF file, written by gguf-py, one tensor in memory at a time."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftlab.errors import ConfigError
from graftlab.models.gguf.file import KINDS

if TYPE_CHECKING:
    import numpy as np

INSTALL = "pip install 'graftlab[gguf]'"
_SIZES = {name: (block, num_bytes) for name, block, num_bytes in KINDS.values()}


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor of a file."""

    kind: str
    """The name of its type, such as Q4_K."""
    shape: tuple[int, ...]
    """Rows first."""

    @property
    def num_bytes(self) -> int:
        block, num_bytes = _SIZES[self.kind]
        return math.prod(self.shape) // block * num_bytes


def require_gguf(target: str) -> None:
    """Raise ConfigError where gguf-py is not installed."""
    if find_spec("gguf") is None:
        raise ConfigError(f"target={target} needs the package gguf: {INSTALL}")


def write_gguf(
    file: Path,
    metadata: Mapping[str, Any],
    entries: Mapping[str, Entry],
    arrays: Iterable[np.ndarray],
) -> None:
    """Write a file of `entries`; `arrays` are the bytes of their values in the same order.

    Numbers of `metadata` are written as llama.cpp takes them: whole ones unsigned, others in fp32.
    Raises OSError.
    """
    import gguf
    import numpy as np

    logging.getLogger("gguf").setLevel(logging.WARNING)  # it tells of every file
    metadata = dict(metadata)
    writer = gguf.GGUFWriter(file, metadata.pop("general.architecture"))
    try:
        for key, value in metadata.items():
            _add(writer, key, value)
        for name, entry in entries.items():
            kind = gguf.GGMLQuantizationType[entry.kind]
            size = entry.num_bytes
            writer.add_tensor_info(name, entry.shape, np.dtype(np.float32), size, raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for stream in writer.fout or []:
            writer.write_padding(stream, stream.tell())  # where the tensors start, also of none
        for array in arrays:
            writer.write_tensor_data(array)
    finally:
        writer.close()


def _add(writer: Any, key: str, value: Any) -> None:
    """A value of plain Python; None is left out."""
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        (writer.add_uint32 if value >= 0 else writer.add_int32)(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    elif value is not None:
        writer.add_array(key, list(value))
