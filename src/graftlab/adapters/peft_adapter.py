"""LoRA layers of PEFT on a Hugging Face base, and the folder they are saved to.

adapter_model.safetensors    base_model.model.<module>.lora_A.weight, .lora_B.weight, ...
adapter_config.json          PEFT's LoraConfig; `peft.PeftModel.from_pretrained` reads both
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from peft.tuners.lora import LoraLayer
from peft.utils.other import ModulesToSaveWrapper, TrainableTokensWrapper
from torch import Tensor, nn

from graftlab.adapters.base import Adapter, installed, restore_modules
from graftlab.adapters.dropout import DropoutStreams
from graftlab.adapters.linear import NAME, AdaptedLinear, is_plain
from graftlab.errors import ModelError
from graftlab.models.quantization.weight import widen_parameters

if TYPE_CHECKING:
    from peft import LoraConfig

    from graftlab.models.hf_base import HFBase

PREFIX = "base_model.model."
"""What PEFT puts in front of every tensor name in a file."""


class PeftAdapter(Adapter):
    """LoRA layers injected into `base`, in PEFT's classes; made by `attach` or `load_adapter`.

    `originals` are the base's modules by name before the injection: `detach` puts those very
    objects back, so the base is bit-identical afterwards.
    """

    def __init__(
        self,
        base: HFBase,
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
        self.tokens = {name: m for name, m in modules if isinstance(m, TrainableTokensWrapper)}
        for wrapper in self.saved.values():
            widen_parameters(wrapper.modules_to_save[NAME], dtype)
        for _, parameter in self.named_parameters():
            parameter.data = parameter.data.to(dtype)
        self._streams = DropoutStreams(self.layers)
        if config.lora_dropout:
            drops = self._streams.dropouts(config.lora_dropout)
            for layer, drop in zip(self.layers.values(), drops, strict=True):
                layer.lora_dropout[NAME] = drop
        plain = [layer for layer in self.layers.values() if is_plain(layer)]
        for layer in plain:
            layer.__class__ = AdaptedLinear
        self.notes = [_computed_by(self.layers.values())] if self.layers else []
        base.adapter = self

    def named_parameters(self) -> list[tuple[str, nn.Parameter]]:
        """Trainable parameters under their names in the file, in the model's own order."""
        if self._detached is not None:
            return list(self._detached)
        return [
            (file_name(name), parameter)
            for name, parameter in self.base.model.named_parameters()
            if parameter.requires_grad
        ]

    def config_dict(self) -> dict[str, Any]:
        """What `adapter_config.json` holds, in plain types and a stable order."""
        import peft

        content = {**self.config.to_dict(), "inference_mode": True}
        content["peft_version"] = peft.__version__
        text = json.dumps(content, sort_keys=True, default=sorted)  # sets have no order
        return dict(json.loads(text))

    def take_over(self, tensors: Mapping[str, Tensor]) -> None:
        self.load_state_dict(self._without_copies(tensors))
        self._check_directions()

    def _without_copies(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The trained tensors: PEFT also saves the base's embedding and head where one is adapted.

        Raises ModelError where those are not the base's, as after `resize_token_embeddings`.
        """
        own = {name for name, _ in self.named_parameters()}
        kept = {}
        for name, tensor in tensors.items():
            place = name.removeprefix(PREFIX).removesuffix(".weight").removesuffix(".base_layer")
            original = getattr(self._originals.get(place), "weight", None)
            if name in own or original is None:
                kept[name] = tensor
            elif tensor.shape != original.shape:
                raise ModelError(
                    f"it carries a {place} of shape {tuple(tensor.shape)} for tokens that were "
                    f"added, and the base's is {tuple(original.shape)}."
                )
            elif not torch.equal(tensor.to(original), original):
                raise ModelError(f"it carries a {place} of its own, of another base.")
        return kept

    def _check_directions(self) -> None:
        """Raise ModelError where the weights taken over can give nothing but NaN."""
        for name, layer in self.layers.items():
            if NAME not in layer.lora_magnitude_vector or NAME not in layer.lora_B:
                continue
            undirected = (layer.lora_B[NAME].weight == 0).all(1) & (base_norms(layer) == 0)
            if undirected.any():
                raise ModelError(
                    f"{name} has {int(undirected.sum())} rows of zeros in the base and in the "
                    "adapter, and DoRA divides by their norm: it gives NaN. Train it anew here, or "
                    "without DoRA."
                )

    @contextmanager
    def disabled(self) -> Iterator[None]:
        """The base alone; which parameters are trainable stays as it is."""
        token_layers = [wrapper.token_adapter for wrapper in self.tokens.values()]
        wrappers = [*self.layers.values(), *self.saved.values(), *self.tokens.values()]
        wrappers += token_layers
        before = [wrapper._disable_adapters for wrapper in wrappers]
        for wrapper in wrappers:
            wrapper._disable_adapters = True
        try:
            yield
        finally:
            for wrapper, was in zip(wrappers, before, strict=True):
                wrapper._disable_adapters = was

    @contextmanager
    def scaled(self, factor: float) -> Iterator[None]:
        """The adapter at another strength: 0 is the base, 1 as trained, between them softer.

        LoRA's update is multiplied by `factor`; what is not an update (DoRA's magnitudes, modules
        trained in full, rows of the embedding) is interpolated between the base's values and the
        trained ones.
        """
        if factor in (0.0, 1.0):  # at 0 DoRA would divide rows of zeros by their norm
            with nullcontext() if factor else self.disabled():
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
        with installed(self.base.model, {**self.layers, **self.saved, **self.tokens}):
            yield

    @torch.no_grad()
    def _interpolated(self) -> list[tuple[Tensor, nn.Parameter]]:
        """Pairs (the base's value, trained parameter) of everything that is not an update."""
        pairs: list[tuple[Tensor, nn.Parameter]] = []
        for layer in self.layers.values():
            if NAME in layer.lora_magnitude_vector:
                pairs.append((base_norms(layer), layer.lora_magnitude_vector[NAME].weight))
        for wrapper in self.saved.values():
            trained = wrapper.modules_to_save[NAME].parameters()
            originals = wrapper.original_module.parameters()
            pairs.extend(zip(originals, trained, strict=True))
        for layer in (wrapper.token_adapter for wrapper in self.tokens.values()):
            if not layer.tied_adapter:  # a tied head has no rows of its own
                rows = layer.trainable_tokens_original[NAME]
                pairs.append((rows, layer.trainable_tokens_delta[NAME]))
        return pairs


def _computed_by(layers: Collection[LoraLayer]) -> str:
    """Which code computes the adapted modules, and why, for the log."""
    others = [layer for layer in layers if not isinstance(layer, AdaptedLinear)]
    if not others:
        return "base product and update of each module are one node"
    kinds = {"DoRA" if x.lora_variant else type(x.get_base_layer()).__name__ for x in others}
    return (
        f"{len(others)} of {len(layers)} modules are computed by PEFT's own layers "
        f"({', '.join(sorted(kinds))}), the others by one node each"
    )


@torch.no_grad()
def base_norms(layer: LoraLayer) -> Tensor:
    """Norms (out,) of the base's rows, in fp32: what DoRA's magnitudes start as."""
    weight: Tensor = layer.get_base_layer().weight.float()
    rows = weight.T if getattr(layer, "fan_in_fan_out", False) else weight
    norms: Tensor = torch.linalg.norm(rows, dim=1)
    return norms


def file_name(parameter_name: str) -> str:
    """A parameter's name in `adapter_model.safetensors`.

    `...q_proj.lora_A.default.weight` becomes `base_model.model....q_proj.lora_A.weight`; a DoRA
    magnitude has no `.weight`, a module trained in full keeps its own name, and rows of an
    embedding are `...embed_tokens.token_adapter.trainable_tokens_delta`.
    """
    name = parameter_name.removesuffix(f".{NAME}")
    name = name.replace(f".modules_to_save.{NAME}.", ".")
    name = name.replace(f".lora_magnitude_vector.{NAME}.weight", ".lora_magnitude_vector")
    return PREFIX + name.replace(f".{NAME}.", ".")
