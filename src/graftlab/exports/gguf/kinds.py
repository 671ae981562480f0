"""Which type each tensor of a file gets, by llama.cpp's own rules.

    f32 f16 bf16 q8_0    one type for all matrices; vectors are always in fp32
    q6_k q4_0            one type, the head in q6_k
    q4_k_m q5_k_m        ... and q6_k for what matters more: values and ffn_down of some layers

A row of blocks of 256 weights must be a multiple of 256: where it is not, the nearest type with
blocks of 32 takes its place, which has more bits. A tied embedding is the head.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from graftlab.exports.gguf.writing import Entry
from graftlab.models.gguf.file import KINDS, GGUFFile
from graftlab.models.gguf.metadata import Metadata


@dataclass(frozen=True, slots=True)
class Quant:
    """One choice of `target.quant`."""

    kind: str
    """The type of most matrices."""
    number: int
    """What `general.file_type` calls it."""
    more: bool = False
    """Whether some matrices get more bits."""


QUANTS = {
    "f32": Quant("F32", 0),
    "f16": Quant("F16", 1),
    "bf16": Quant("BF16", 32),
    "q8_0": Quant("Q8_0", 7),
    "q6_k": Quant("Q6_K", 18),
    "q5_k_m": Quant("Q5_K", 17, more=True),
    "q4_k_m": Quant("Q4_K", 15, more=True),
    "q4_0": Quant("Q4_0", 2),
}
FLOATS = ("F32", "F16", "BF16")
FALLBACKS = {"Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}
"""What takes the place of a type whose blocks a row does not fill."""
LARGE = 80
"""Layers of models whose few keys and values serve eight heads each, and get a bit more."""
_BLOCKS = {name: block for name, block, _ in KINDS.values()}
_BYTES = {name: num_bytes for name, _, num_bytes in KINDS.values()}


def entries(
    quant: str, header: GGUFFile, shapes: Mapping[str, tuple[int, ...]]
) -> tuple[dict[str, Entry], int]:
    """Type and shape of every tensor by its name in the file, and how many fell back."""
    chosen, told = QUANTS[quant], Metadata(header)
    layers = told.integer("block_count")
    shared = layers == LARGE and told.value("attention.head_count_kv") < told.value(
        "attention.head_count"
    )
    tied, found, fallen = "output.weight" not in shapes, {}, 0
    for name, shape in shapes.items():
        wanted = "F32" if len(shape) == 1 else _wanted(chosen, name, layers, tied, shared)
        kind = fitting(wanted, shape[-1])
        fallen += kind != wanted
        found[name] = Entry(kind, shape)
    return found, fallen


def fitting(kind: str, width: int) -> str:
    """The type itself, or what takes its place for rows of this width."""
    while width % _BLOCKS[kind]:
        kind = FALLBACKS.get(kind, "F16")
    return kind


def bits(entries: Mapping[str, Entry]) -> float:
    """Bits of a weight, over all of them."""
    values = sum(e.num_bytes * _BLOCKS[e.kind] // _BYTES[e.kind] for e in entries.values())
    return 8 * sum(entry.num_bytes for entry in entries.values()) / values


def _wanted(quant: Quant, name: str, layers: int, tied: bool, shared: bool) -> str:
    """The type of a matrix, rows of any width."""
    kind = quant.kind
    if kind in FLOATS or kind == "Q8_0":
        return kind
    if name == "output.weight" or (name == "token_embd.weight" and tied):
        return "Q6_K"
    if not quant.more or not name.startswith("blk."):
        return kind
    _, number, part, *_ = name.split(".")
    if part in ("attn_v", "ffn_down") and _matters(int(number), layers):
        return "Q6_K"
    if part == "attn_qkv":
        return {"Q4_K": "Q5_K", "Q5_K": "Q6_K"}[kind]
    return "Q5_K" if part == "attn_v" and shared and kind == "Q4_K" else kind


def _matters(layer: int, layers: int) -> bool:
    """The first and last eighth of the layers, and every third between."""
    eighth = layers // 8
    return layer < eighth or layer >= 7 * layers // 8 or (layer - eighth) % 3 == 2
