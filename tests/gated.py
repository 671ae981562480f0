"""Exports at the gate: written, altered where a fault is planted, and asked in their runtime."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from graftlab.exports.parity.gate import gate
from graftlab.exports.parity.record import Report
from graftlab.exports.parity.spec import Parity
from graftlab.exports.source import Trained, load
from graftlab.exports.target import Target

WARNINGS = (
    "ignore:.is_gradient_checkpointing:FutureWarning",
    "ignore:Model has .tie_word_embeddings:UserWarning",
    "ignore:.*tie_word_embeddings=True.*:UserWarning",
)
Alter = Callable[[Path], None]


def gated(
    target: Target, run: Path, folder: Path, alter: Alter | None = None, **keys: Any
) -> Report:
    """What the gate says of the run as an export, once `alter` has had its folder."""
    adapter = load(str(run))
    write(target, adapter, folder)
    if alter is not None:
        alter(folder)
    return gate(target, adapter, folder, Parity(**{"rows": 2, "tokens": 8, **keys}))


def write(target: Target, adapter: Trained, folder: Path) -> None:
    target.check(adapter)
    folder.mkdir(parents=True)
    target.write(adapter, folder)


def change_tensors(folder: Path, change: Callable[[str, torch.Tensor], torch.Tensor]) -> None:
    """Write the safetensors files of `folder` anew, every tensor as `change` makes it."""
    for file in folder.glob("*.safetensors"):
        state = {name: change(name, t).contiguous() for name, t in load_file(file).items()}
        save_file(state, file, metadata={"format": "pt"})
