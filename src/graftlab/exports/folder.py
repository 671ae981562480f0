"""The export's folder: never in place of anything but an export."""

from __future__ import annotations

from pathlib import Path

from graftlab.errors import ConfigError

SIGNS = (
    *("metadata.json", "Manifest.json", "adapter_config.json", "adapters.safetensors"),
    *("config.json", "adapter_model.safetensors"),
)
"""One of these is in every export; a folder without any is none."""


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
