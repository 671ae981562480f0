"""An adapter on its base: trainable parameters, dropout, strength, and the folder it is saved to.

adapter_model.safetensors    base_model.model.<module>.lora_A.weight, .lora_B.weight, ...
adapter_config.json          PEFT's LoraConfig; `peft.PeftModel.from_pretrained` reads both
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from peft.tuners.lora import LoraLayer
from peft.utils.other import ModulesToSaveWrapper
from torch import Tensor, nn

from graftlab.adapters.dropout import DropoutStreams
from graftlab.errors import ModelError

if TYPE_CHECKING:
    from peft import LoraConfig

    from graftlab.models.base import Base

NAME = "default"
"""PEFT's name of the one adapter there is; files do not carry it."""
PREFIX = "base_model.model."
"""What PEFT puts in front of every tensor name in a file."""
WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"


class Adapter:
    """LoRA layers injected into `base`, in PEFT's classes; made by `attach` or `load_adapter`.

    `originals` are the base's modules by name before the injection: `detach` puts those very
    objects back, so the base is bit-identical afterwards.
    """

    def __init__(
        self,
        base: Base,
        config: LoraConfig,
        *,
        originals: Mapping[str, nn.Module],
        dtype: torch.dtype,
    ) -> None:
        self.base = base
        self.config = config
        self._originals = originals
        modules = list(base.model.named_modules())
        self._detached: list[tuple[str, nn.Parameter]] | None = None
        self.layers = {name: m for name, m in modules if isinstance(m, LoraLayer)}
        self.saved = {name: m for name, m in modules if isinstance(m, ModulesToSaveWrapper)}
        for _, parameter in self.named_parameters():
            parameter.data = parameter.data.to(dtype)
        self._streams = DropoutStreams(self.layers, config.lora_dropout, adapter=NAME)
        base.adapter = self

    @property
    def num_trainable(self) -> int:
        return sum(parameter.numel() for _, parameter in self.named_parameters())

    def named_parameters(self) -> list[tuple[str, nn.Parameter]]:
        """Trainable parameters under their names in the file, in the model's own order."""
        if self._detached is not None:
            return list(self._detached)
        return [
            (file_name(name), parameter)
            for name, parameter in self.base.model.named_parameters()
            if parameter.requires_grad
        ]

    def state_dict(self) -> dict[str, Tensor]:
        """Copies of the weights on the CPU, under PEFT's names."""
        return {
            name: p.detach().cpu().clone(memory_format=torch.contiguous_format)
            for name, p in self.named_parameters()
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take over weights by PEFT's names. Raises ModelError unless names and shapes agree."""
        own = dict(self.named_parameters())
        problems = [f"{name} is missing" for name in own if name not in state]
        problems += [f"{name} is not part of it" for name in state if name not in own]
        problems += [
            f"{name} has shape {tuple(state[name].shape)}, not {tuple(parameter.shape)}"
            for name, parameter in own.items()
            if name in state and state[name].shape != parameter.shape
        ]
        if problems:
            more = f" (and {len(problems) - 3} more)" if len(problems) > 3 else ""
            raise ModelError("adapter weights do not fit: " + "; ".join(problems[:3]) + more)
        with torch.no_grad():
            for name, parameter in own.items():
                parameter.copy_(state[name])

    def config_dict(self) -> dict[str, Any]:
        """What `adapter_config.json` holds, in plain types and a stable order."""
        import peft

        content = {**self.config.to_dict(), "inference_mode": True}
        content["peft_version"] = peft.__version__
        text = json.dumps(content, sort_keys=True, default=sorted)  # sets have no order
        return dict(json.loads(text))

    def save(self, folder: Path) -> None:
        """Write the two files of PEFT's format into `folder`; equal adapters give equal bytes."""
        from safetensors.torch import save

        folder.mkdir(parents=True, exist_ok=True)
        metadata = {"format": "pt", "base_fingerprint": self.base.fingerprint}
        (folder / WEIGHTS).write_bytes(_sorted_header(save(self.state_dict(), metadata)))
        text = json.dumps(self.config_dict(), indent=2)
        (folder / CONFIG).write_text(text + "\n", encoding="utf-8")

    @contextmanager
    def disabled(self) -> Iterator[None]:
        """The base alone; which parameters are trainable stays as it is."""
        wrappers = [*self.layers.values(), *self.saved.values()]
        for wrapper in wrappers:
            wrapper._disable_adapters = True
        try:
            yield
        finally:
            for wrapper in wrappers:
                wrapper._disable_adapters = False

    @contextmanager
    def scaled(self, factor: float) -> Iterator[None]:
        """The adapter at another strength: 0 is the base, 1 as trained, between them softer.

        LoRA's update is multiplied by `factor`; what is not an update (DoRA's magnitudes, modules
        trained in full) is interpolated between the base's values and the trained ones.
        """
        if factor == 1.0:
            yield
            return
        replaced = [(p, p.data) for _, p in self._interpolated()]
        scalings = {name: layer.scaling[NAME] for name, layer in self.layers.items()}
        for start, parameter in self._interpolated():
            parameter.data = torch.lerp(start.to(parameter.dtype), parameter.data, factor)
        for name, layer in self.layers.items():
            layer.scaling[NAME] = scalings[name] * factor
        try:
            yield
        finally:
            for name, layer in self.layers.items():
                layer.scaling[NAME] = scalings[name]
            for parameter, data in replaced:
                parameter.data = data

    def set_step(self, *, seed: int, step: int, micro_step: int) -> None:
        """Draw the dropout masks of f(seed, step, micro_step, module) from here on."""
        self._streams.set_step(seed=seed, step=step, micro_step=micro_step)

    def detach(self) -> None:
        """Take the adapter out of the base, which is then bit-identical to a fresh one.

        The adapter keeps its weights, can be saved, and be `mounted` again.
        """
        self._detached = self.named_parameters()
        restore_modules(self.base.model, self._originals)
        self.base.adapter = None

    @contextmanager
    def mounted(self) -> Iterator[None]:
        """A detached adapter back on its base, inside the `with` block."""
        with installed(self.base.model, {**self.layers, **self.saved}):
            yield

    @torch.no_grad()
    def _interpolated(self) -> list[tuple[Tensor, nn.Parameter]]:
        """Pairs (the base's value, trained parameter) of everything that is not an update."""
        pairs: list[tuple[Tensor, nn.Parameter]] = []
        for layer in self.layers.values():
            if NAME in layer.lora_magnitude_vector:
                dora = layer.lora_magnitude_vector[NAME]
                weight = layer.get_base_layer().weight.float()
                rows = weight.T if getattr(layer, "fan_in_fan_out", False) else weight
                pairs.append((torch.linalg.norm(rows, dim=1), dora.weight))
        for wrapper in self.saved.values():
            trained = wrapper.modules_to_save[NAME].parameters()
            originals = wrapper.original_module.parameters()
            pairs.extend(zip(originals, trained, strict=True))
        return pairs


def file_name(parameter_name: str) -> str:
    """A parameter's name in `adapter_model.safetensors`.

    `...q_proj.lora_A.default.weight` becomes `base_model.model....q_proj.lora_A.weight`; a DoRA
    magnitude has no `.weight`, a module trained in full keeps its own name.
    """
    name = parameter_name.replace(f".modules_to_save.{NAME}.", ".")
    name = name.replace(f".lora_magnitude_vector.{NAME}.weight", ".lora_magnitude_vector")
    return PREFIX + name.replace(f".{NAME}.", ".")


def restore_modules(model: nn.Module, originals: Mapping[str, nn.Module]) -> None:
    """Put every replaced module of `model` back, parents before children."""
    for name, module in originals.items():
        parent_name, _, attribute = name.rpartition(".")
        if not name:
            continue
        parent = originals[parent_name]
        if parent._modules.get(attribute) is not module:
            parent._modules[attribute] = module
    if hasattr(model, "peft_config"):
        del model.peft_config


@contextmanager
def installed(model: nn.Module, modules: Mapping[str, nn.Module]) -> Iterator[None]:
    """`modules` in the places of `model` that they are named for; what stood there comes back."""
    places = [(model.get_submodule(name.rpartition(".")[0]), name) for name in modules]
    before = []
    try:
        for parent, name in places:
            leaf = name.rpartition(".")[2]
            before.append((parent, leaf, parent._modules[leaf]))
            parent._modules[leaf] = modules[name]
        yield
    finally:
        for parent, leaf, module in before:
            parent._modules[leaf] = module


def _sorted_header(data: bytes) -> bytes:
    """A safetensors file with its header in a fixed order; the library writes metadata in any."""
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.dumps(json.loads(data[8:end]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)  # tensors start at a multiple of eight
    return len(header).to_bytes(8, "little") + header + data[end:]
