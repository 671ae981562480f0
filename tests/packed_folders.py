"""Model folders as bitsandbytes saves them, byte by byte and without it.

Names, types and shapes are those that transformers 5.23 with bitsandbytes 0.50.2 writes.
"""

from __future__ import annotations

import json
import math
import re
import shutil
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

NF4_MAP = (
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
    *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
    *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
    *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
)
NESTED_MAP = tuple((code - 100) / 128 for code in range(256))
"""Not the one that bitsandbytes makes: what counts is what the file says."""
OFFSET = 0.25
MATRIX = re.compile(r"model\.layers\.\d+\..+_proj\.weight")

Part = tuple[str, tuple[int, ...], bytes]
"""Type, shape and content of a tensor."""
Parts = dict[str, Part]
CONFIGS: dict[str, dict[str, Any]] = {
    "nf4": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
    "double": {
        "load_in_4bit": True,
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": True,
    },
    "int8": {"load_in_8bit": True, "llm_int8_threshold": 6.0},
}


def floats(*values: float) -> bytes:
    return struct.pack(f"<{len(values)}f", *values)


def state(kind: str, size: tuple[int, ...], **changes: Any) -> Part:
    """The JSON beside a weight of four bits, as bytes."""
    told = {"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": list(size)}
    if kind == "double":
        told |= {"nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": OFFSET}
    text = json.dumps(told | changes).encode()
    return "U8", (len(text),), text


def by_hand(kind: str, name: str, shape: tuple[int, int]) -> tuple[Parts, np.ndarray]:
    """The tensors of a weight with codes and scales of our own, and its values, computed here."""
    out, into = shape
    size, stem = out * into, name.removesuffix("weight")
    if kind == "int8":
        codes = (np.arange(size) * 37 % 255 - 127).astype(np.int8)
        largest = (np.arange(out) % 7 + 1).astype(np.float32) * np.float32(0.127)
        values = codes.reshape(shape).astype(np.float32) * (largest / np.float32(127))[:, None]
        return {
            name: ("I8", shape, codes.tobytes()),
            f"{stem}SCB": ("F32", (out,), largest.tobytes()),
            f"{stem}weight_format": ("U8", (), b"\0"),
        }, values
    nibbles = np.arange(size) * 11 % 16
    packed = (nibbles[0::2] << 4 | nibbles[1::2]).astype(np.uint8)
    blocks = size // 64
    parts: Parts = {
        name: ("U8", (size // 2, 1), packed.tobytes()),
        f"{name}.quant_map": ("F32", (16,), floats(*NF4_MAP)),
        f"{name}.quant_state.bitsandbytes__nf4": state(kind, shape),
    }
    scales = (np.arange(blocks) % 5 + 1).astype(np.float32) * np.float32(0.03)
    if kind == "nf4":
        parts[f"{name}.absmax"] = ("F32", (blocks,), scales.tobytes())
    else:
        codes = (np.arange(blocks) * 29 % 256).astype(np.uint8)
        groups = -(-blocks // 256)
        largest = (np.arange(groups) + 1).astype(np.float32) * np.float32(0.3)
        parts[f"{name}.absmax"] = ("U8", (blocks,), codes.tobytes())
        parts[f"{name}.nested_absmax"] = ("F32", (groups,), largest.tobytes())
        parts[f"{name}.nested_quant_map"] = ("F32", (256,), floats(*NESTED_MAP))
        tree = np.array(NESTED_MAP, np.float32)
        scales = tree[codes] * largest[np.arange(blocks) // 256] + np.float32(OFFSET)
    values = np.array(NF4_MAP, np.float32)[nibbles].reshape(-1, 64) * scales[:, None]
    return parts, values.reshape(shape)


def of_weights(kind: str, name: str, weight: np.ndarray) -> Parts:
    """The tensors of a wide weight as our own codes, which are those of bitsandbytes."""
    import torch

    from graftlab.models.quantization.int8 import Int8
    from graftlab.models.quantization.nf4 import NF4

    shape, stem = weight.shape, name.removesuffix("weight")
    values = torch.from_numpy(weight)
    if kind == "int8":
        codes, _ = (part.numpy() for part in Int8().quantise(values, torch.float32).parts)
        return {
            name: ("I8", shape, codes.tobytes()),
            f"{stem}SCB": ("F32", shape[:1], np.abs(weight).max(1).tobytes()),
        }
    codes, scales = (part.numpy() for part in NF4().quantise(values, torch.float32).parts)
    return {
        name: ("U8", (len(codes), 1), codes.tobytes()),
        f"{name}.absmax": ("F32", scales.shape, scales.tobytes()),
        f"{name}.quant_map": ("F32", (16,), floats(*NF4_MAP)),
        f"{name}.quant_state.bitsandbytes__nf4": state(kind, shape),
    }


def write_tensors(file: Path, tensors: Mapping[str, Part]) -> None:
    header, end = {}, 0
    for name, (dtype, shape, content) in tensors.items():
        header[name] = {
            "dtype": dtype,
            "shape": list(shape),
            "data_offsets": [end, end := end + len(content)],
        }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    content = b"".join(content for _, _, content in tensors.values())
    file.write_bytes(struct.pack("<Q", len(text)) + text + content)


def packed_folder(
    wide: Path,
    target: Path,
    kind: str,
    *,
    hand: bool = False,
    change: Callable[[Parts], object] = lambda parts: None,
) -> tuple[Path, dict[str, np.ndarray]]:
    """The model of `wide` (fp32) as bitsandbytes would save it; with `hand` codes of our own, and
    their values by name. `change` may damage the tensors.
    """
    shutil.copytree(wide, target)
    configure(target, quantization_config={"quant_method": "bitsandbytes", **CONFIGS[kind]})
    parts: Parts = {}
    values: dict[str, np.ndarray] = {}
    for name, weight in sorted(load_file(wide / "model.safetensors").items()):
        assert weight.dtype == np.float32
        if not MATRIX.fullmatch(name):
            parts[name] = ("F32", weight.shape, weight.tobytes())
        elif hand:
            assert math.prod(weight.shape) % 64 == 0
            made, values[name] = by_hand(kind, name, weight.shape)
            parts |= made
        else:
            parts |= of_weights(kind, name, weight)
    change(parts)
    write_tensors(target / "model.safetensors", parts)
    return target, values


def configure(folder: Path, **fields: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))
