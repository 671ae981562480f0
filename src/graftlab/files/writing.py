"""Files and folders that appear whole or not at all, whatever ends the process.

    .NAME.HOST-PID-XXXXXX.partial    written beside its place, then synced and renamed onto it

A partial name says who writes it, so that what a killed process left is removed by the next one
(`clear_leftovers`), and what a living one writes is not.
"""

from __future__ import annotations

import json
import math
import os
import re
import secrets
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PARTIAL = re.compile(r"\..+\.(?P<host>[^.]+)-(?P<pid>\d+)-[0-9a-f]{6}\.partial")


def partial_path(target: Path) -> Path:
    """A new path beside `target`, of this process, to write what then becomes `target`."""
    name = target.name[:150]  # names of 255 bytes are the most that file systems take
    return target.with_name(f".{name}.{_host()}-{os.getpid()}-{secrets.token_hex(3)}.partial")


def _host() -> str:
    return re.sub(r"[^A-Za-z0-9_-]", "_", socket.gethostname()) or "host"


def clear_leftovers(folder: Path, *, abandoned: float = math.inf) -> list[Path]:
    """Remove the partial files and folders whose writer, on this host, is gone; returns them.

    Nobody knows of writers on other hosts: theirs go when nothing was written to them for
    `abandoned` seconds.
    """
    removed = []
    for path in folder.glob(".*.partial"):
        found = _PARTIAL.fullmatch(path.name)
        if found is None:
            continue
        here = found["host"] == _host()
        if is_alive(int(found["pid"])) if here else _idle_seconds(path) < abandoned:
            continue
        try:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        except OSError:  # another start removes it at the same time, or it is another user's
            continue
        removed.append(path)
    return removed


def _idle_seconds(path: Path) -> float:
    """How long nothing was written to a file or to those in a folder; 0 where it is gone now."""
    try:
        entries = [path, *path.rglob("*")]
        newest: float = max(entry.stat().st_mtime for entry in entries)
    except OSError:
        return 0.0
    return time.time() - newest


def is_alive(pid: int) -> bool:
    """Whether a process of this number runs on this host, whoever's it is."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


@contextmanager
def folders_above(target: Path) -> Iterator[None]:
    """The folders above `target`, made; those in which nothing lies at the end are gone again."""
    made = [folder for folder in target.parents if not folder.exists()]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield
    finally:
        for folder in made:
            with suppress(OSError):  # not there, or something lies in it
                folder.rmdir()


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """A path to write to, which becomes `path` when the block ends well; else nothing is left.

    A reader of `path` sees the old or the new content, never a part. Raises OSError.
    """
    draft = partial_path(path)
    try:
        yield draft
        sync_file(draft)
        publish(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def write_atomic(path: Path, text: str) -> None:
    """Write and sync a text so that a reader sees the old or the new one, never a part."""
    with atomic_file(path) as draft:
        draft.write_text(text, encoding="utf-8", newline="")


def write_json(path: Path, value: object) -> None:
    """`value` as indented JSON, written atomically."""
    write_atomic(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def publish(temporary: Path, path: Path) -> None:
    """Rename onto `path` durably: the folder's entry is synced too."""
    os.replace(temporary, path)
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file(file: Path) -> None:
    """Make the content of a file durable."""
    with file.open("rb") as handle:
        os.fsync(handle.fileno())


def sync_files(folder: Path) -> None:
    """Make the content of every file below `folder` durable."""
    for file in folder.rglob("*"):
        if file.is_file():
            sync_file(file)
