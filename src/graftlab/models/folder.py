"""Which model lies in a folder: told by the one file that every folder of its kind holds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from graftlab.models.base import ModelSpec
from graftlab.models.hf import HFModel
from graftlab.registry import load_rooms

ADAPTER = "adapter_config.json"
"""Beside a config.json it says that the folder is an adapter's, which may carry its base's."""

_KINDS: dict[str, Callable[[Path], ModelSpec]] = {}


def register_model_folder(file: str, describe: Callable[[Path], ModelSpec]) -> None:
    """Folders with a file of this name hold what `describe(folder)` says.

    They are looked at before those of transformers, which have a config.json.
    """
    _KINDS[file] = describe


def model_in(folder: Path) -> ModelSpec | None:
    """The whole model in `folder`; None where there is none. Nothing is read of it."""
    if (folder / ADAPTER).is_file():
        return None
    load_rooms()
    for file, describe in _KINDS.items():
        if (folder / file).is_file():
            return describe(folder)
    return HFModel(path=str(folder)) if (folder / "config.json").is_file() else None
