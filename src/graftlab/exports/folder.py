"""The export's folder: whole or not at all, and never in place of anything but an export."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from graftlab.errors import ConfigError
from graftlab.files.building import building as build
from graftlab.files.building import strangers

SIGNS = (
    *("metadata.json", "Manifest.json", "adapter_config.json", "adapters.safetensors"),
    *("config.json", "adapter_model.safetensors"),
)
"""One of these is in every export; a folder without any is none."""


@contextmanager
def building(target: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """A folder to fill, which becomes `target` when the block ends well.

    It lies beside the target, so nothing is copied; when the block fails, nothing of it is left and
    what stood at `target` still stands. Raises ConfigError when `target` is there already (unless
    `overwrite`), holds files that no export of this kind has, or cannot be written.
    """
    require_free(target, overwrite=overwrite)
    try:
        with build(target) as draft:
            yield draft
            if target.exists() and (others := strangers(target, draft)):
                more = f" and {len(others) - 5} more" if len(others) > 5 else ""
                raise ConfigError(
                    f"{target} holds files that this export does not have: "
                    f"{', '.join(others[:5])}{more}. Move them away, or take another out=."
                )
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigError(f"{target} cannot be written: {reason}. Nothing was left.") from error


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
