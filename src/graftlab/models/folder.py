"""Which model lies in a folder: one of transformers, or one of Apple's kind."""

from __future__ import annotations

from pathlib import Path

from graftlab.models.afm import AFMModel
from graftlab.models.afm_files import WEIGHTS
from graftlab.models.base import ModelSpec
from graftlab.models.hf import HFModel

ADAPTER = "adapter_config.json"
"""Beside a config.json it says that the folder is an adapter's, which may carry its base's."""


def model_in(folder: Path) -> ModelSpec | None:
    """The whole model in `folder`; None where there is none. Nothing is read of it."""
    if (folder / ADAPTER).is_file():
        return None
    if (folder / WEIGHTS).is_file():
        return AFMModel(path=str(folder))
    return HFModel(path=str(folder)) if (folder / "config.json").is_file() else None
