"""A folder that appears whole or not at all, and the words for a disk that refuses."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from graftlab.errors import ConfigError
from graftlab.files.writing import publish


@contextmanager
def building(target: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """A folder of the target's name to fill, which becomes `target` when the block ends well.

    It lies beside the target, so nothing is copied; when the block fails, nothing of it is left and
    what stood at `target` still stands. Raises ConfigError when `target` is there already (unless
    `overwrite`) or cannot be written.
    """
    require_free(target, overwrite=overwrite)
    made = [folder for folder in target.parents if not folder.exists()]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        room = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        raise ConfigError(f"{target} cannot be written: {error.strerror}.") from error
    try:
        draft = room / target.name
        draft.mkdir()
        yield draft
        _sync(draft)
        _swap(draft, target, before=room / "before")
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigError(f"{target} cannot be written: {reason}. Nothing was left.") from error
    finally:
        shutil.rmtree(room, ignore_errors=True)
        for folder in made:
            with suppress(OSError):  # not empty: the export lies in it
                folder.rmdir()


def require_free(target: Path, *, overwrite: bool) -> None:
    """Raise ConfigError unless `target` may be written."""
    if target.exists() and not overwrite:
        raise ConfigError(f"{target} is there already: overwrite=true replaces it.")
    if target.exists() and not target.is_dir():
        raise ConfigError(f"{target} is a file, and the export is a folder: take another out=.")


def _swap(draft: Path, target: Path, *, before: Path) -> None:
    if not target.exists():
        publish(draft, target)
        return
    os.replace(target, before)
    try:
        publish(draft, target)
    except OSError:
        os.replace(before, target)
        raise


def _sync(folder: Path) -> None:
    for file in folder.rglob("*"):
        if file.is_file():
            with file.open("rb") as handle:
                os.fsync(handle.fileno())
