"""Base and adapter as one model's parameters, in fp32, one in memory at a time.

    a folder of safetensors      its weights
    the same, as nf4 or int8     what its codes widen to, which is what the adapter was trained on
    a GGUF file                  what its blocks widen to, likewise

Merging into the full-precision weights what was trained on codes gives another model: 0.31 nats
(KL) on a base of 135M parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from graftlab.adapters.origin import require_same_base
from graftlab.errors import ModelError, listed
from graftlab.exports.changes import Change
from graftlab.exports.merge import plan_changes
from graftlab.exports.plain_base import require_known_base
from graftlab.exports.source import Trained
from graftlab.models.fingerprint import fingerprint
from graftlab.models.gguf import GGUFModel
from graftlab.models.gguf.weights import parameter_shapes, read_parameter
from graftlab.models.hf import HFModel
from graftlab.models.outline import outline, stored_names
from graftlab.models.quantization.base import Codes, Quantization
from graftlab.models.quantization.packed import comes_as, packed_weights
from graftlab.models.quantization.packed_loading import read_codes
from graftlab.models.quantization.weight import QuantizedWeight
from graftlab.models.weights import StoredTensor, read_json, read_tensor, stored_tensors

if TYPE_CHECKING:
    from graftlab.adapters.artifact import TrainedModel
    from graftlab.models.hf_base import HFBase

CPU = torch.device("cpu")
FINE = ("F32", "F16", "BF16", "Q8_0")
"""Types of a file whose steps are finer than what an adapter adds."""


@dataclass(frozen=True, slots=True)
class Merged:
    """A model's parameters, under transformers' names."""

    trained: TrainedModel
    base: HFBase
    """Without weights."""
    shapes: Mapping[str, tuple[int, ...]]
    """Of every parameter that the merged model has, each tensor once."""
    changes: Mapping[str, Change]
    """What the adapter makes of some of them."""
    unties: bool
    """Whether embedding and head, one in the base, are two afterwards."""
    coded: bool
    """Whether the base is a folder whose weights are stored as codes."""
    _original: Callable[[str], Tensor]

    @property
    def on_a_grid(self) -> bool:
        """Whether the base is a file with blocks of fewer than eight bits."""
        model = self.trained.model
        if not isinstance(model, GGUFModel):
            return False
        return any(tensor.dtype not in FINE for tensor in model.file().tensors.values())

    def tensor(self, name: str) -> Tensor:
        """A parameter as it is to be, in fp32: summed so, and not rounded yet."""
        original, change = self._original(name), self.changes.get(name)
        if change is not None:
            return change.apply(original, torch.float32)
        return original.float()


def merged(adapter: Trained, strength: float, *, target: str) -> Merged:
    """The adapter in its base. Raises ConfigError or ModelError where it cannot be merged."""
    trained = require_known_base(adapter, target)
    model, source = trained.model, trained.adapter
    assert source is not None, "a whole model was refused"
    if not isinstance(model, HFModel | GGUFModel):
        raise ModelError(
            f"{adapter.path} was trained on {model.name}, and target={target} takes adapters of "
            "Hugging Face folders and GGUF files."
        )
    base = outline(model)
    if isinstance(model, HFModel):
        names, read = stored_names(base), _of_folder(model, base)
    else:
        names, read = {name: name for name in parameter_shapes(model.file())}, _of_file(model)

    def as_stored(storage: Quantization) -> str:
        return fingerprint(base.folder, storage) if isinstance(model, HFModel) else own

    own = model.fingerprint()
    require_same_base(source, model.name, own, as_stored=as_stored)
    single, double = (_shapes(base, duplicates=duplicates) for duplicates in (False, True))
    plan = plan_changes(base, source, adapter.state, names=names, original=read, strength=strength)
    shapes = double if plan.unties else single
    keys = {name: names.get(name, name) for name in shapes}
    places = {name: plan.untied.get(key, key) for name, key in keys.items()}
    if absent := sorted(name for name in shapes if places[name] not in names.values()):
        raise ModelError(
            f"{model.name}: its files hold {listed(absent, 3)} otherwise than the model, and "
            f"target={target} takes tensors as they are."
        )
    changes = {name: plan.changes[key] for name, key in keys.items() if key in plan.changes}
    coded = isinstance(model.storage, Codes)
    return Merged(
        trained, base, shapes, changes, plan.unties, coded, lambda name: read(places[name])
    )


def _shapes(base: HFBase, *, duplicates: bool) -> dict[str, tuple[int, ...]]:
    parameters = base.model.named_parameters(remove_duplicate=not duplicates)
    return {name: tuple(parameter.shape) for name, parameter in parameters}


def _of_folder(model: HFModel, base: HFBase) -> Callable[[str], Tensor]:
    """Reads a tensor of a folder by its name there; of one stored as codes, what they say."""
    stored, choice = stored_tensors(base.folder), model.quantization
    if (own := comes_as(read_json(base.folder / "config.json"))) is not None:
        return _of_packed(base.folder, stored, own)
    coded: set[str] = set()
    if isinstance(choice, Codes):
        from graftlab.models.quantization.loading import quantised_shapes

        names = stored_names(base)
        coded = {names[n] for n, _ in quantised_shapes(base.model, head=choice.head) if n in names}

    def read(name: str) -> Tensor:
        values = read_tensor(name, stored[name])
        if name in coded and isinstance(choice, Codes):
            return choice.quantise(values.float(), torch.float32).wide()
        return values

    return read


def _of_packed(
    folder: Path, stored: Mapping[str, StoredTensor], own: Codes
) -> Callable[[str], Tensor]:
    """Reads a tensor of a folder that came as codes."""
    packed = packed_weights(folder, stored, own)

    def read(name: str) -> Tensor:
        if name in packed:
            found = read_codes(packed[name], name, own, dtype=torch.float32, device=CPU)
            return found.wide()
        return read_tensor(name, stored[name])

    return read


def _of_file(model: GGUFModel) -> Callable[[str], Tensor]:
    """Reads a tensor of a GGUF file by transformers' name."""
    file = model.file()

    def read(name: str) -> Tensor:
        found = read_parameter(file, name, dtype=torch.float32, device=CPU)
        return found.wide() if isinstance(found, QuantizedWeight) else found

    return read
