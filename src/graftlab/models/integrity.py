"""Folders and files of trained weights, checked before anything of them is read."""

from __future__ import annotations

from pathlib import Path

from graftlab.errors import ModelError, did_you_mean
from graftlab.files.checksums import CHECKSUMS, DamagedError, check_file, check_folder

NOTES = ("card.md", "README.md")
"""For people, who may write into them."""


def existing_folder(path: str) -> Path:
    """The folder that `model.path` names, in full. Raises ModelError, with a name that is near."""
    folder = Path(path).expanduser()
    if folder.is_file():
        own = folder.suffix == ".gguf"
        take = f"a GGUF file: model=gguf model.path={path}" if own else "a file: name its folder"
        raise ModelError(f"model.path={path} is {take}.")
    if not folder.is_dir():
        parent = folder.parent
        siblings = [p.name for p in parent.iterdir() if p.is_dir()] if parent.is_dir() else []
        hint = did_you_mean(folder.name, siblings)
        raise ModelError(f"model.path={path}: there is no such folder.{hint}")
    return folder.resolve()


def require_undamaged(place: Path) -> None:
    """Raise ModelError where a file is not as graftlab wrote it; others' files have no checksums.

    `place` is an adapter folder, a model folder, or a checkpoint.
    """
    try:
        if place.is_dir():
            check_folder(place, without=NOTES)
        else:
            check_file(place)
    except DamagedError as error:
        own = f", or remove {place / CHECKSUMS} if the change was yours" if place.is_dir() else ""
        raise ModelError(
            f"{error}. Copy it again from where it is whole{own}; a run has further adapters in "
            "adapter-final/ and checkpoints/."
        ) from error
