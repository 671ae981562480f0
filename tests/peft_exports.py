"""Exports for PEFT, written and read back."""

from __future__ import annotations

from pathlib import Path

import torch

from graftlab.exports.peft import Peft
from graftlab.exports.source import load

IDS = torch.randint(5, 200, (2, 9), generator=torch.Generator().manual_seed(3))


def exported(run: Path, folder: Path) -> Path:
    folder.mkdir()
    target, adapter = Peft(), load(str(run))
    target.check(adapter)
    target.write(adapter, folder)
    assert "tensors read back equal" in target.verify(adapter, folder)[0]
    return folder
