"""A model of transformers whose weights are those of a GGUF file, packed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from graftlab.errors import ModelError
from graftlab.models.gguf.file import GGUFFile
from graftlab.models.gguf.weights import check_weights, read_parameters

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def load_model(
    file: GGUFFile, folder: Path, *, dtype: torch.dtype, device: torch.device, packed: bool
) -> PreTrainedModel:
    """The model that config.json in `folder` describes. Raises ModelError where they do not fit.

    Only its weights are the file's; what is computed from the config is made as for any model.
    """
    from accelerate import init_empty_weights
    from transformers import AutoConfig, AutoModelForCausalLM

    from graftlab.packing.attention import ATTENTION, register

    register()
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        with torch.device(device), init_empty_weights(include_buffers=False):
            model: Any = AutoModelForCausalLM.from_config(
                config, dtype=dtype, attn_implementation=ATTENTION, trust_remote_code=False
            )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{file.path}: its metadata makes no model: {error}") from error
    model.tie_weights()
    check_weights(file, {name: p.shape for name, p in model.named_parameters()})
    places = dict(model.named_parameters(remove_duplicate=False))
    weights = read_parameters(file, dtype=dtype, device=device, packed=packed)
    made = {id(places[name]): nn.Parameter(w, requires_grad=False) for name, w in weights}
    for module in model.modules():
        for leaf, empty in module._parameters.items():
            if empty is not None:
                module._parameters[leaf] = made[id(empty)]
    return model
