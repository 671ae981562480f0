"""The export's folder: never in place of anything but an export."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from graftlab.errors import ConfigError
from graftlab.files.ownership import is_everybodys

SIGNS = (
    *("metadata.json", "Manifest.json", "adapter_config.json", "adapters.safetensors"),
    *("config.json", "adapter_model.safetensors", "model.gguf", "adapter.gguf"),
)
"""One of these is in every export; a folder without any is none."""


def place_of(out: str, name: str | None, suffix: str) -> Path:
    """The folder that the export becomes, in full. Raises ConfigError for one that others need."""
    folder = Path(out).expanduser()
    place = Path(os.path.abspath(folder / f"{name}{suffix}" if name else folder))
    if is_everybodys(place) or place == Path.cwd():
        raise ConfigError(f"out={out} is no folder of its own: give a new one.")
    return place


def require_apart(target: Path, sources: Iterable[Path | None]) -> None:
    """Raise ConfigError where `target` is one of the folders that the export is made of."""
    for source in sources:
        if source is not None and source.resolve() == target.resolve():
            raise ConfigError(f"{target} is what is exported: take another out=.")


def require_free(target: Path, *, overwrite: bool) -> None:
    """Raise ConfigError unless `target` may be written."""
    if target.exists() and not overwrite:
        raise ConfigError(f"{target} is there already: overwrite=true replaces it.")
    if target.exists() and not target.is_dir():
        raise ConfigError(f"{target} is a file, and the export is a folder: take another out=.")
    if not target.is_dir() or not any(target.iterdir()):
        return
    if not any((target / name).is_file() for name in SIGNS):
        raise ConfigError(f"{target} is no export: overwrite=true replaces nothing else.")
