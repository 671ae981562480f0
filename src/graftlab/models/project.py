"""A small model's embedding from a large one's: its rows on their own principal directions.

What a teacher knows of its vocabulary (which words are alike) mostly survives in few directions; a
student that starts from them need not find it out from a fine-tuning set. Its head is tied to it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from graftlab.errors import ModelError
from graftlab.models.headers import find_embedding
from graftlab.models.weights import stored_tensors

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ROWS = 16384
"""Rows of the embedding in fp32 at a time: all of them may be gigabytes."""


@torch.no_grad()
def project_embedding(model: PreTrainedModel, folder: Path) -> None:
    """Set the embedding of `model` (V, d) to that in `folder` (V, D), at the scale it was drawn at.

    Raises ModelError where `folder` names no embedding, or one of another vocabulary.
    """
    own = model.get_input_embeddings().weight
    rows = _embedding(folder)
    if rows.shape[0] != own.shape[0]:
        raise ModelError(f"{folder}: its embedding has {rows.shape[0]} rows, not {own.shape[0]}.")
    project(own, rows)


@torch.no_grad()
def project(own: Tensor, rows: Tensor) -> None:
    """Set `own` (V, d) to `rows` (V, D) on their principal directions, at its own scale.

    Where it is wider than the other, nothing is to be projected and it is left as it is.
    """
    if own.shape[1] > rows.shape[1]:
        return
    products = torch.zeros(rows.shape[1], rows.shape[1])
    for part in torch.split(rows, ROWS):
        products += part.float().T @ part.float()
    directions = torch.linalg.eigh(products).eigenvectors[:, -own.shape[1] :]
    projected = torch.cat([part.float() @ directions for part in torch.split(rows, ROWS)])
    own.copy_(projected * (own.std() / projected.std()))


def _embedding(folder: Path) -> Tensor:
    from safetensors import safe_open

    found = find_embedding(stored_tensors(folder))
    if found is None:
        raise ModelError(f"{folder} names no embedding that is known: give model.embedding=fresh.")
    name, tensor = found
    with safe_open(tensor.file, framework="pt") as file:
        rows: Tensor = file.get_tensor(name)
        return rows
