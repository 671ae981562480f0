"""A folder that appears whole or not at all, in place of an earlier one or of none.

    .NAME.HOST-PID-XXXXXX.partial/NAME/    filled, synced ...
    .NAME.before/                          ... the earlier one steps aside ...
    NAME/                                  ... and the new one takes its place

A process that is killed leaves the old folder or the new one: between the two renames the old one
is `.NAME.before`, which the next start puts back (`recover`).
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from graftlab.errors import ConfigError, listed
from graftlab.files.writing import (
    clear_leftovers,
    folders_above,
    partial_path,
    publish,
    sync_files,
)


@contextmanager
def building(target: Path, *, replaces: Collection[str] = (), keeps: bool = True) -> Iterator[Path]:
    """A folder to fill, which becomes `target` when the block ends well; else nothing is left.

    It lies beside `target`, so nothing is copied, and until the end what stood there still stands.
    What lies in an earlier `target` and not in the new folder was put there by somebody else, and
    is kept; but for the entries named `replaces`, which we may have written. Unless it `keeps`
    them, such files are refused: ConfigError. Raises OSError.
    """
    target = target.resolve() if target.is_symlink() else target
    with folders_above(target), scratch_folder(target) as draft:
        recover(target)
        yield draft
        if target.exists() and not keeps:
            _refuse_strangers(target, draft)
        elif target.exists():
            _keep_strangers(target, draft, replaces)
        sync_files(draft)
        _swap(draft, target)


@contextmanager
def scratch_folder(target: Path, *, abandoned: float = math.inf) -> Iterator[Path]:
    """A folder beside `target` that is gone when the block ends, if it was not renamed.

    What killed processes have left there is cleared first (`clear_leftovers`). Raises OSError.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    clear_leftovers(target.parent, abandoned=abandoned)
    room = partial_path(target)
    try:
        draft = room / target.name  # some formats have the folder's name inside
        draft.mkdir(parents=True)
        yield draft
    finally:
        shutil.rmtree(room, ignore_errors=True)


def recover(target: Path) -> None:
    """Put back what a process that was killed had moved aside; remove it where it is replaced."""
    before = _before(target)
    if not before.is_dir() or before.is_symlink():
        return
    if target.exists():
        shutil.rmtree(before)
    else:
        publish(before, target)


def _swap(draft: Path, target: Path) -> None:
    if not target.exists():
        publish(draft, target)
        return
    before = _before(target)
    os.replace(target, before)
    try:
        publish(draft, target)
    except BaseException:
        if not target.exists():
            os.replace(before, target)
        raise
    shutil.rmtree(before)


def _before(target: Path) -> Path:
    return target.with_name(f".{target.name}.before")


def _refuse_strangers(earlier: Path, new: Path) -> None:
    """Raise ConfigError where `earlier` has files that `new` does not have."""
    others = sorted(
        name
        for file in earlier.rglob("*")
        if not file.is_dir() or file.is_symlink()
        if not os.path.lexists(new / (name := file.relative_to(earlier).as_posix()))
    )
    if others:
        raise ConfigError(
            f"{earlier} holds files that the new one does not have: {listed(others, 5)}. "
            "Move them away, or take another folder."
        )


def _keep_strangers(earlier: Path, new: Path, replaces: Collection[str]) -> None:
    """Give `new` what only `earlier` has; linked, as both are there until the renames are done."""
    for entry in os.scandir(earlier):
        place = new / entry.name
        if entry.name in replaces:
            continue
        if entry.is_dir(follow_symlinks=False):
            if not os.path.lexists(place):
                place.mkdir()
            if place.is_dir():
                _keep_strangers(Path(entry.path), place, ())
        elif not os.path.lexists(place):
            _second_name(Path(entry.path), place)


def _second_name(file: Path, place: Path) -> None:
    if file.is_symlink():
        place.symlink_to(os.readlink(file))
        return
    try:
        os.link(file, place)
    except OSError:  # a file system without hard links
        shutil.copy2(file, place)
