"""The weights of a GGUF file under transformers' names, packed as they lie in the file.

blk.0.attn_q.weight   Q4_K (out, in)    rows of blocks, mapped; llama: rows in another order
blk.0.attn_norm.weight F32 (in,)        a tensor; Gemma: less one
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from graftlab.errors import ModelError
from graftlab.models.gguf.blocks import PLAIN, Blocks
from graftlab.models.gguf.families import OUTSIDE, family_of
from graftlab.models.gguf.file import GGUFFile, map_file
from graftlab.models.gguf.metadata import Metadata
from graftlab.models.gguf.rope import USED
from graftlab.models.quantization.weight import QuantizedWeight

if TYPE_CHECKING:
    from graftlab.models.weights import StoredTensor

_LAYER = re.compile(r"model\.layers\.(\d+)\.(.+)")


def file_name(file: GGUFFile, parameter: str) -> str:
    """llama.cpp's name of a parameter of the model, `blk.7.attn_q.weight`."""
    module, _, leaf = parameter.rpartition(".")
    found = _LAYER.fullmatch(module)
    if found is None:
        return f"{OUTSIDE.get(module, module)}.{leaf}"
    return f"blk.{found[1]}.{family_of(file).modules.get(found[2], found[2])}.{leaf}"


def parameter_shapes(file: GGUFFile) -> dict[str, tuple[int, ...]]:
    """Name in transformers -> shape, of all weights in the file. Raises ModelError."""
    inside = {theirs: ours for ours, theirs in family_of(file).modules.items()}
    outside = {theirs: ours for ours, theirs in OUTSIDE.items()}
    shapes = {}
    for name, tensor in file.tensors.items():
        module, _, leaf = name.rpartition(".")
        block = re.fullmatch(r"blk\.(\d+)\.(.+)", module)
        if block and block[2] in inside:
            shapes[f"model.layers.{block[1]}.{inside[block[2]]}.{leaf}"] = tensor.shape
        elif module in outside:
            shapes[f"{outside[module]}.{leaf}"] = tensor.shape
        elif name not in USED:
            raise ModelError(
                f"{file.path} holds {name}, which a {family_of(file).model_class} has no place for "
                "and would do without."
            )
    return shapes


def check_weights(file: GGUFFile, wanted: Mapping[str, Iterable[int]]) -> None:
    """Raise ModelError unless the file has exactly the parameters of a model, name -> shape."""
    shapes = parameter_shapes(file)
    absent = sorted(wanted.keys() - shapes.keys())
    if absent:
        raise ModelError(
            f"{file.path} lacks {len(absent)} tensors of a {family_of(file).model_class}: "
            f"{', '.join(file_name(file, name) for name in absent[:3])}."
        )
    if surplus := sorted(shapes.keys() - wanted.keys()):
        raise ModelError(
            f"{file.path} holds {len(surplus)} tensors that a {family_of(file).model_class} has no "
            f"place for: {', '.join(file_name(file, name) for name in surplus[:3])}."
        )
    for name, shape in wanted.items():
        if shapes[name] != tuple(shape):
            raise ModelError(
                f"{file.path}: {file_name(file, name)} is {shapes[name]}, and by the metadata it "
                f"would be {tuple(shape)}."
            )


def read_parameters(
    file: GGUFFile, *, dtype: torch.dtype, device: torch.device, packed: bool = True
) -> Iterator[tuple[str, Tensor]]:
    """All weights, by transformers' names, for products in `dtype`.

    Matrices stay in the blocks that the file has, and on a processor in the file itself, unless
    they are not to be `packed`; all others are in `dtype`.
    """
    for name in parameter_shapes(file):
        weight = read_parameter(file, name, dtype=dtype, device=device)
        if isinstance(weight, QuantizedWeight) and not packed:
            weight = weight.wide()
        yield name, weight


def read_parameter(
    file: GGUFFile, name: str, *, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """The weight that transformers calls `name`, as `read_parameters` gives it, packed."""
    stored = file.tensors[file_name(file, name)]
    end = stored.offset + stored.num_bytes
    data = torch.from_numpy(map_file(stored.file))[stored.offset : end].to(device)
    return _weight(file, name, stored, data, dtype)


def in_file(file: GGUFFile, name: str, values: Tensor) -> Tensor:
    """The values of a parameter as a file of this header holds them, which reading undoes."""
    if values.ndim == 1 and "norm" in name:
        values = values + family_of(file).norm_offset
    order = _halves(file, name, len(values))
    return values if order is None else values[order.argsort()]


def _weight(
    file: GGUFFile, name: str, stored: StoredTensor, data: Tensor, dtype: torch.dtype
) -> Tensor:
    family = family_of(file)
    if len(stored.shape) == 1:
        values = Blocks(stored.dtype).widen([data], torch.Size(stored.shape), torch.float32)
        if "norm" in name:
            values = values - family.norm_offset
        return _in_halves(file, name, values).to(dtype)
    rows = _in_halves(file, name, data.view(stored.shape[0], -1))
    if PLAIN.get(stored.dtype) is dtype:
        return rows.view(dtype)
    return QuantizedWeight(Blocks(stored.dtype), [rows], stored.shape, dtype)


def _in_halves(file: GGUFFile, name: str, rows: Tensor) -> Tensor:
    """Rows of q or k whose pairs are turned together, ordered as transformers turns halves."""
    order = _halves(file, name, len(rows))
    return rows if order is None else rows[order.to(rows.device)]


def _halves(file: GGUFFile, name: str, count: int) -> Tensor | None:
    """Which of the file's rows come first for transformers; None where all lie as in the file.

    So do those of other weights than q and k, and of families that turn halves.
    """
    keys = {"q_proj": "attention.head_count", "k_proj": "attention.head_count_kv"}
    module = name.split(".")[-2]
    if module not in keys or not family_of(file).rotates_pairs:
        return None
    told = Metadata(file)
    heads = int(told.number(keys[module], told.integer("attention.head_count")))
    return torch.arange(count).view(heads, -1, 2).transpose(1, 2).reshape(-1)
