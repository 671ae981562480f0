"""A model of transformers whose weights are those of a GGUF file, packed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from graftlab.errors import ModelError
from graftlab.models.empty import empty_model, place_tensors
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
    try:
        model = empty_model(folder, dtype=dtype, device=device)
    except Exception as error:  # transformers and its classes raise anything
        reason = " ".join(str(error).split())[:300]
        raise ModelError(f"{file.path}: its metadata makes no model: {reason}") from error
    check_weights(file, {name: p.shape for name, p in model.named_parameters()})
    places = dict(model.named_parameters(remove_duplicate=False))
    weights = read_parameters(file, dtype=dtype, device=device, packed=packed)
    place_tensors(model, {id(places[name]): weight for name, weight in weights})
    return model
