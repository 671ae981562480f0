"""A model without weights, and tensors put into it: for bases that transformers does not read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from graftlab.models.from_pretrained import stock_attention
from graftlab.packing.attention import ATTENTION, register

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def empty_model(
    folder: Path,
    *,
    dtype: torch.dtype,
    device: torch.device,
    trust_remote_code: bool = False,
    own: bool = False,
) -> PreTrainedModel:
    """The model that config.json in `folder` describes, as `from_pretrained` makes it.

    Its parameters take no memory and have no values; what is computed from the config does.
    """
    from accelerate import init_empty_weights
    from transformers import AutoConfig, AutoModelForCausalLM

    register()
    config = AutoConfig.from_pretrained(
        folder, local_files_only=True, trust_remote_code=trust_remote_code
    )
    config.__dict__.pop("quantization_config", None)  # it is given codes, or none
    with torch.device(device), init_empty_weights(include_buffers=False):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(
            config,
            dtype=dtype,
            attn_implementation=None if own else ATTENTION,
            trust_remote_code=trust_remote_code,
        )
    model.tie_weights()
    if own:
        model.set_attn_implementation(stock_attention(model))
    return model


def place_tensors(model: nn.Module, values: Mapping[int, Tensor]) -> None:
    """Put `values` in the place of every parameter, frozen, and of some buffers, by their `id`."""
    parameters = {id(parameter) for parameter in model.parameters()}
    made = {key: nn.Parameter(values[key], requires_grad=False) for key in parameters}
    for module in model.modules():
        for leaf, parameter in module._parameters.items():
            if parameter is not None:
                module._parameters[leaf] = made[id(parameter)]
        for leaf, buffer in module._buffers.items():
            if buffer is not None and id(buffer) in values:
                module._buffers[leaf] = values[id(buffer)]
