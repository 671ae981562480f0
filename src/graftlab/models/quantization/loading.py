"""Weights that become codes while a folder is read: transformers' hook for quantisation.

safetensors  --one tensor, fp32-->  codes in the model's parameter, and the tensor is dropped
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from transformers.core_model_loading import ConversionOps
from transformers.pytorch_utils import Conv1D
from transformers.quantizers import HfQuantizer, register_quantization_config, register_quantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from graftlab.errors import ModelError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from graftlab.models.quantization.base import Codes

METHOD = "graftlab"
"""The name under which transformers knows it."""


@register_quantization_config(METHOD)
class CodesConfig(QuantizationConfigMixin):  # type: ignore[misc]
    """What `from_pretrained` is given, for the length of the loading."""

    def __init__(self, choice: Codes, dtype: torch.dtype, device: torch.device) -> None:
        self.quant_method: Any = METHOD
        self.choice = choice
        self.dtype = dtype
        self.device = device


@register_quantizer(METHOD)
class WhileLoading(HfQuantizer):  # type: ignore[misc]
    """Every matrix of the decoder layers becomes codes as it is read."""

    quantization_config: CodesConfig

    def param_needs_quantization(self, model: PreTrainedModel, param_name: str, **_: Any) -> bool:
        return param_name in self.room

    def _process_model_before_weight_loading(self, model: PreTrainedModel, **_: Any) -> None:
        config = self.quantization_config
        scheme = config.choice.scheme()
        # Allocated before any weight is read: between codes, what wide weights leave would be holes
        # that the next one does not fit into.
        self.room = {
            name: scheme.allocate(shape, config.device)
            for name, shape in quantised_shapes(model, head=config.choice.head)
        }
        # Codes are made of what the files hold, whatever dtype the rest is stored in.
        self.strict = model._keep_in_fp32_modules_strict
        model._keep_in_fp32_modules_strict = {*(self.strict or ()), *self.room}

    def _process_model_after_weight_loading(self, model: PreTrainedModel, **_: Any) -> None:
        model._keep_in_fp32_modules_strict = self.strict
        self.remove_quantization_config(model)  # an ordinary model from here on

    def get_quantize_ops(self) -> Quantise:
        return Quantise(self.quantization_config, self.room)

    @property
    def quantized_element_size(self) -> float:
        return self.quantization_config.choice.num_bytes(4096, 4096) / 4096**2

    def is_serializable(self) -> bool:
        return False

    @property
    def is_trainable(self) -> bool:
        return True


class Quantise(ConversionOps):  # type: ignore[misc]
    """One weight into codes."""

    def __init__(self, config: CodesConfig, room: Mapping[str, list[Tensor]]) -> None:
        self.config, self.room = config, room

    def convert(
        self, input_dict: dict[str, Any], *, model: PreTrainedModel, **_: Any
    ) -> dict[str, Tensor]:
        """Name -> codes, from name -> the weight in fp32, by itself or in a list."""
        return {name: self._codes(_only(value), model, name) for name, value in input_dict.items()}

    def _codes(self, weight: Tensor, model: PreTrainedModel, name: str) -> nn.Parameter:
        turned = isinstance(model.get_submodule(name.rpartition(".")[0]), Conv1D)
        codes = self.config.choice.scheme().quantise(
            weight.T if turned else weight, self.config.dtype, parts=self.room[name]
        )
        return nn.Parameter(codes.T if turned else codes, requires_grad=False)


def quantised_shapes(
    model: PreTrainedModel, *, head: bool
) -> Iterator[tuple[str, tuple[int, int]]]:
    """Name and (out, in) of the parameters that are stored as codes; a `Conv1D`'s lie as (in, out).

    Raises ModelError where there is no such head, or where they are the smaller part of a layer.
    """
    layers, taken = tuple(f"{name}." for name in _layer_names(model)), 0
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | Conv1D) and name.startswith(layers):
            taken += module.weight.numel()
            first, second = module.weight.shape
            turned = isinstance(module, Conv1D)
            yield f"{name}.weight", (second, first) if turned else (first, second)
    inside = sum(p.numel() for name, p in model.named_parameters() if name.startswith(layers))
    if 2 * taken < inside:
        raise ModelError(
            f"{type(model).__name__} keeps most weights of its layers in other modules than "
            "nn.Linear, and a quantization stores those alone. Leave it out."
        )
    if head:
        output = model.get_output_embeddings()
        found = [name for name, module in model.named_modules() if module is output]
        if not found or f"{found[0]}.weight" in model.all_tied_weights_keys:
            raise ModelError(
                "model.quantization.head=true: the head of this model is its embedding, which "
                "stays as it is. Leave it out."
            )
        yield f"{found[0]}.weight", tuple(output.weight.shape)


def _layer_names(model: PreTrainedModel) -> list[str]:
    depth = model.config.get_text_config().num_hidden_layers
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == depth
    ][:1]


def _only(value: Any) -> Tensor:
    weight: Tensor = value[0] if isinstance(value, list) else value
    return weight
