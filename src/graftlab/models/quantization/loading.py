"""Weights that become codes while a folder is read: transformers' hook for quantisation.

safetensors  --one tensor, fp32-->  codes in the model's parameter, and the tensor is dropped
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from transformers.core_model_loading import ConversionOps
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

    def __init__(self, choice: Codes, dtype: torch.dtype) -> None:
        self.quant_method: Any = METHOD
        self.choice = choice
        self.dtype = dtype


@register_quantizer(METHOD)
class WhileLoading(HfQuantizer):  # type: ignore[misc]
    """Every matrix of the decoder layers becomes codes as it is read."""

    quantization_config: CodesConfig

    def param_needs_quantization(self, model: PreTrainedModel, param_name: str, **_: Any) -> bool:
        return param_name in self.names

    def _process_model_before_weight_loading(self, model: PreTrainedModel, **_: Any) -> None:
        self.names = set(quantised_names(model, head=self.quantization_config.choice.head))
        # Codes are made of what the files hold, whatever dtype the rest is stored in.
        self.strict = model._keep_in_fp32_modules_strict
        model._keep_in_fp32_modules_strict = {*(self.strict or ()), *self.names}

    def _process_model_after_weight_loading(self, model: PreTrainedModel, **_: Any) -> None:
        model._keep_in_fp32_modules_strict = self.strict
        self.remove_quantization_config(model)  # an ordinary model from here on

    def get_quantize_ops(self) -> Quantise:
        return Quantise(self.quantization_config)

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

    def __init__(self, config: CodesConfig) -> None:
        self.config = config

    def convert(self, input_dict: dict[str, Any], **_: Any) -> dict[str, Tensor]:
        """Name -> codes, from name -> the weight in fp32, by itself or in a list."""
        choice, dtype = self.config.choice, self.config.dtype
        return {
            name: nn.Parameter(choice.quantise(_only(value), dtype), requires_grad=False)
            for name, value in input_dict.items()
        }


def quantised_names(model: PreTrainedModel, *, head: bool) -> Iterator[str]:
    """The parameters that are stored as codes. Raises ModelError where there is no such head."""
    layers = tuple(f"{name}." for name in _layer_names(model))
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and name.startswith(layers):
            yield f"{name}.weight"
    if head:
        output = model.get_output_embeddings()
        found = [name for name, module in model.named_modules() if module is output]
        if not found or f"{found[0]}.weight" in model.all_tied_weights_keys:
            raise ModelError(
                "model.quantization.head=true: the head of this model is its embedding, which "
                "stays as it is. Leave it out."
            )
        yield f"{found[0]}.weight"


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
