"""A folder that bitsandbytes has quantised, as a model whose weights are its very codes.

NAME, NAME.absmax       -->  codes and scales, as they lie in the file
SCB                     -->  scales, largest / 127
all others              -->  in the dtype that the precision says
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from graftlab.errors import ModelError, listed
from graftlab.models.empty import place_tensors
from graftlab.models.headers import weights_in_layers
from graftlab.models.quantization.base import Codes
from graftlab.models.quantization.int8_rows import LARGEST
from graftlab.models.quantization.nf4_blocks import VALUES
from graftlab.models.quantization.packed import Packed, packed_weights, plain_tensors
from graftlab.models.quantization.weight import QuantizedWeight
from graftlab.models.weights import StoredTensor, copy_tensor, stored_tensors

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def load_packed(
    model: PreTrainedModel, folder: Path, own: Codes, *, dtype: torch.dtype, device: torch.device
) -> PreTrainedModel:
    """`model`, whose parameters have no values, with those of `folder`, stored as `own` says.

    Raises ModelError where they are another model's.
    """
    tensors = stored_tensors(folder)
    packed = packed_weights(folder, tensors, own)
    plain = plain_tensors(tensors, packed)
    _require_fitting(model, folder, packed, plain)
    strict = tuple(model._keep_in_fp32_modules_strict or ())
    values: dict[int, Tensor] = {}
    for name, place in _places(model).items():
        if name in packed:
            weight = read_codes(packed[name], name, own, dtype=dtype, device=device)
            values[id(place)] = weight.T if _lies_turned(model, name) else weight
        elif name in plain:
            kept = torch.float32 if any(part in name for part in strict) else dtype
            value = copy_tensor(plain[name])
            values[id(place)] = value.to(device, kept if value.is_floating_point() else None)
    place_tensors(model, values)
    return model


def read_codes(
    packed: Packed, name: str, own: Codes, *, dtype: torch.dtype, device: torch.device
) -> QuantizedWeight:
    """The weight called `name`, its codes as they lie in the folder. Raises ModelError."""
    codes, scales = (copy_tensor(part) for part in (packed.codes, packed.scales))
    if packed.quant_map is None:
        parts = [codes, scales.reshape(-1) / LARGEST]
    elif copy_tensor(packed.quant_map).tolist() != list(VALUES):
        raise ModelError(
            f"{packed.codes.file}: the codes of {name} stand for other values than those of nf4. "
            "Use the full-precision folder of the same model."
        )
    else:
        parts = [codes.reshape(-1), scales.reshape(-1)]
    if packed.nested is not None:
        largest, tree = (copy_tensor(part).reshape(-1) for part in packed.nested)
        parts += [largest, torch.tensor(packed.offset, dtype=torch.float32), tree]
    if not all(bool(part.isfinite().all()) for part in parts if part.is_floating_point()):
        raise ModelError(
            f"{packed.codes.file}: of the scales of {name} some are NaN or infinite: the file is "
            "damaged. Copy it again."
        )
    placed = [part.to(device) for part in parts]
    return QuantizedWeight(own.scheme(), placed, packed.shape, dtype)


def _places(model: nn.Module) -> dict[str, Tensor]:
    """Every parameter and saved buffer by each of its names."""
    saved = model.state_dict(keep_vars=True)
    return {**saved, **dict(model.named_parameters(remove_duplicate=False))}


def _require_fitting(
    model: PreTrainedModel,
    folder: Path,
    packed: dict[str, Packed],
    plain: dict[str, StoredTensor],
) -> None:
    places = _places(model)
    held: dict[str, tuple[int, ...]] = {name: tensor.shape for name, tensor in plain.items()}
    held |= {name: weight.shape for name, weight in packed.items()}
    given = {id(place) for name, place in places.items() if name in held}
    problems = [f"{name} is missing" for name, p in places.items() if id(p) not in given]
    extra = [name for name in packed if name not in places]
    extra += weights_in_layers(name for name in plain if name not in places)
    problems += [f"it has no place for {name}" for name in extra]
    for name, place in places.items():
        found = held.get(name, place.shape)
        wanted = tuple(place.shape)
        if name in packed and _lies_turned(model, name):
            wanted = wanted[::-1]
        if name in packed and not isinstance(_module(model, name), nn.Linear | Conv1D):
            problems.append(f"{name} is no weight of a linear layer")
        elif tuple(found) != wanted:
            problems.append(f"{name} is {tuple(found)}, not {wanted}")
    if problems:
        raise ModelError(
            f"{folder}: its tensors are not those of a {type(model).__name__}: "
            f"{listed(problems, 3)}. Use the full-precision folder of the same model."
        )


def _module(model: nn.Module, name: str) -> nn.Module:
    return model.get_submodule(name.rpartition(".")[0])


def _lies_turned(model: nn.Module, name: str) -> bool:
    return isinstance(_module(model, name), Conv1D)
