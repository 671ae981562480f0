"""Folders that bitsandbytes has quantised: which weights are codes, and where their parts lie.

    8 bits    NAME (out, in) I8, its rows' largest in SCB (out,) F32 and weight_format () U8
    nf4       NAME (n / 2, 1) U8    NAME.absmax (n / 64,) F32    NAME.quant_map (16,) F32
              NAME.quant_state.bitsandbytes__nf4    JSON as bytes: block size, shape
    double    NAME.absmax (n / 64,) U8    NAME.nested_absmax (n / 64 / 256,) F32
              NAME.nested_quant_map (256,) F32    nested_offset in the JSON

Told by config.json, names, shapes and those few bytes; no weight is read and torch is not needed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from graftlab.errors import ModelError
from graftlab.files import reading
from graftlab.models.quantization.base import Codes, Quantization
from graftlab.models.quantization.int8 import Int8
from graftlab.models.quantization.nf4 import NF4
from graftlab.models.weights import StoredTensor, read_json, stored_tensors
from graftlab.registry import choice_of

STATE = ".quant_state.bitsandbytes__"
BLOCK, NESTED_BLOCK = 64, 256
LONGEST_STATE = 4096
"""Bytes of a quant_state: its JSON takes about two hundred."""


@dataclass(frozen=True, slots=True)
class Packed:
    """One weight (out, in), and the tensors of its codes and scales."""

    shape: tuple[int, int]
    codes: StoredTensor
    scales: StoredTensor
    """fp32; with `nested` their codes, and in eight bits the largest values of the rows."""
    quant_map: StoredTensor | None = None
    """What the sixteen codes stand for; none in eight bits."""
    nested: tuple[StoredTensor, StoredTensor] | None = None
    """The scales of scales, and what the 256 codes of scales stand for."""
    offset: float = 0.0
    """What is added to scales that were codes."""


def comes_as(config: Mapping[str, Any]) -> Codes | None:
    """How a folder with this config.json stores its layers; None where it is not of codes that
    are read here.
    """
    told = config.get("quantization_config")
    if not isinstance(told, dict) or told.get("quant_method", "bitsandbytes") != "bitsandbytes":
        return None
    if told.get("load_in_8bit") and not told.get("load_in_4bit"):
        return Int8()
    wanted = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
    if any(told.get(key) != value for key, value in wanted.items()):
        return None
    if told.get("bnb_4bit_quant_storage", "uint8") != "uint8":
        return None
    return NF4(double=bool(told.get("bnb_4bit_use_double_quant")))


def refuse_twice(folder: Path, config: Mapping[str, Any], asked: Quantization) -> None:
    """Raise ModelError where codes would be made of codes."""
    own = comes_as(config)
    if own is not None and asked.title:
        raise ModelError(
            f"{folder} holds its weights in {own.title} (bitsandbytes), and quantization="
            f"{choice_of(type(asked))} would round them a second time: leave it out, or take the "
            "full-precision folder of the same model."
        )


def weights_in(folder: Path) -> dict[str, StoredTensor]:
    """`stored_tensors`, in which a weight of codes has its name and shape, and its parts none.

    Raises ModelError for a broken file, and for codes that are not read here.
    """
    return unpacked(folder, read_json(folder / "config.json"), stored_tensors(folder))


def unpacked(
    folder: Path, config: Mapping[str, Any], tensors: dict[str, StoredTensor]
) -> dict[str, StoredTensor]:
    """What `weights_in` says, of a folder whose headers have been read. Raises ModelError."""
    if (own := comes_as(config)) is None:
        return tensors
    packed = packed_weights(folder, tensors, own)
    others = plain_tensors(tensors, packed)
    wide = {n: replace(w.codes, dtype="F32", shape=w.shape) for n, w in packed.items()}
    return {**others, **wide}


def plain_tensors(
    tensors: Mapping[str, StoredTensor], packed: Mapping[str, Packed]
) -> dict[str, StoredTensor]:
    """Those that are no part of a weight of codes."""
    parts = set(packed)
    for name in packed:
        stem = name.removesuffix("weight")
        parts |= {f"{stem}SCB", f"{stem}weight_format"}
    return {
        name: tensor
        for name, tensor in tensors.items()
        if name not in parts and name.rpartition(".")[0].partition(".quant_state")[0] not in parts
    }


def packed_weights(
    folder: Path, tensors: Mapping[str, StoredTensor], own: Codes
) -> dict[str, Packed]:
    """Every weight of codes by name. Raises ModelError for a folder in which one is not as told."""
    find = _in_4_bits if isinstance(own, NF4) else _in_8_bits
    try:
        found = dict(find(tensors, own))
    except (ValueError, KeyError, TypeError, OSError) as error:
        problem = f"{error.args[0]} is missing" if isinstance(error, KeyError) else error
        raise ModelError(
            f"{folder} is quantised (bitsandbytes, {own.title}) in a way that is not read here: "
            f"{problem}. Use the full-precision folder of the same model."
        ) from error
    if not found:
        raise ModelError(
            f"{folder}: config.json says that it is quantised (bitsandbytes, {own.title}), and no "
            "tensor is. Remove quantization_config there, or copy the folder again."
        )
    return found


def _in_8_bits(tensors: Mapping[str, StoredTensor], own: Codes) -> Iterator[tuple[str, Packed]]:
    for name, scales in tensors.items():
        if not name.endswith(".SCB"):
            continue
        stem = name.removesuffix("SCB")
        codes = tensors[f"{stem}weight"]
        layout = tensors.get(f"{stem}weight_format")
        _require(layout is None or not any(_bytes(layout)), f"{stem}weight is not stored by rows")
        out, into = _matrix(codes.shape, f"{stem}weight")
        _is(codes, f"{stem}weight", "I8", out * into)
        _is(scales, name, "F32", out)
        yield f"{stem}weight", Packed((out, into), codes, scales)


def _in_4_bits(tensors: Mapping[str, StoredTensor], own: Codes) -> Iterator[tuple[str, Packed]]:
    for label, state in tensors.items():
        name, _, kind = label.partition(STATE)
        if not kind:
            continue
        _require(kind == "nf4", f"{name} is stored as {kind}")
        told = reading.load_json(_bytes(state))
        _require(told["blocksize"] == BLOCK, f"{name} has blocks of {told['blocksize']!r}, not 64")
        out, into = _matrix(told["shape"], name)
        blocks = out * into // BLOCK
        _require(blocks * BLOCK == out * into, f"the size of {name} is no multiple of 64")
        codes, scales, table = (
            tensors[name],
            tensors[f"{name}.absmax"],
            tensors[f"{name}.quant_map"],
        )
        _is(codes, name, "U8", blocks * BLOCK // 2)
        _is(table, f"{name}.quant_map", "F32", 16)
        double = f"{name}.nested_absmax" in tensors
        _require(
            double == getattr(own, "double", False), f"{name} is not stored as config.json says"
        )
        _is(scales, f"{name}.absmax", "U8" if double else "F32", blocks)
        if not double:
            yield name, Packed((out, into), codes, scales, table)
            continue
        size = told["nested_blocksize"]
        _require(size == NESTED_BLOCK, f"the scales of {name} have blocks of {size}, not 256")
        nested = tensors[f"{name}.nested_absmax"], tensors[f"{name}.nested_quant_map"]
        _is(nested[0], f"{name}.nested_absmax", "F32", -(-blocks // NESTED_BLOCK))
        _is(nested[1], f"{name}.nested_quant_map", "F32", 256)
        offset = float(told["nested_offset"])
        yield name, Packed((out, into), codes, scales, table, nested, offset)


def _require(fits: bool, problem: str) -> None:
    if not fits:
        raise ValueError(problem)


def _matrix(shape: Any, name: str) -> tuple[int, int]:
    _require(
        len(shape) == 2 and all(isinstance(n, int) and n > 0 for n in shape),
        f"{name} is no matrix, but {list(shape)}",
    )
    return shape[0], shape[1]


def _is(tensor: StoredTensor, name: str, dtype: str, size: int) -> None:
    found = f"{tensor.dtype} {list(tensor.shape)}"
    fits = tensor.dtype == dtype and math.prod(tensor.shape) == size
    _require(fits, f"{name} is {found}, not {size:,} of {dtype}")


def _bytes(tensor: StoredTensor) -> bytes:
    _require(tensor.num_bytes <= LONGEST_STATE, f"{tensor.num_bytes:,} bytes are no description")
    with tensor.file.open("rb") as stream:
        stream.seek(tensor.offset)
        return stream.read(tensor.num_bytes)
