"""Merged exports: written and read back, and what they say in plain transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from graftlab.exports.merged import Merged
from graftlab.exports.source import load

IDS = torch.randint(5, 200, (2, 9), generator=torch.Generator().manual_seed(3))


def exported(run: Path, folder: Path, **keys: Any) -> Path:
    folder.mkdir()
    target, adapter = Merged(**keys), load(str(run))
    target.check(adapter)
    target.write(adapter, folder)
    target.verify(adapter, folder)
    return folder


def plain_logits(folder: Path, ids: torch.Tensor = IDS) -> torch.Tensor:
    """What plain transformers answers: (B, T) -> (B, T, V)."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        return model(input_ids=ids).logits


def tensors_in(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of a model folder, under their names in the files."""
    return {n: t for file in folder.glob("*.safetensors") for n, t in load_file(file).items()}
