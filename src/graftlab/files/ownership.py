"""Whose folder it is: ours are marked by a file, and nothing is written into anybody else's.

    FOLDER/.graftlab    {"kind": "run"}

The mark is the first file of a folder, written while it is new or empty. A file that looks like one
of ours, such as a `run.yaml`, says nothing: people keep copies of those.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from graftlab.errors import ConfigError, listed
from graftlab.files.reading import UnreadableError, read_json
from graftlab.files.writing import write_json

MARK = ".graftlab"
LOCK = ".graftlab.lock"
NOTHING = frozenset({MARK, LOCK, ".DS_Store", ".gitignore", ".gitkeep"})
"""A folder that holds nothing else is empty."""


def kind_of(folder: Path) -> str | None:
    """What a folder was marked as, such as `run`; None where it was not marked by us."""
    try:
        mark = read_json(folder / MARK)
    except (OSError, UnreadableError):
        return None
    return str(mark["kind"]) if isinstance(mark, dict) and "kind" in mark else None


def take(folder: Path, kind: str, *, key: str) -> None:
    """Make the folder, if it is not there, and mark it as ours.

    `key` is what named it, such as `hydra.run.dir`. Raises ConfigError where the folder is
    somebody else's, or cannot be written; then nothing was.
    """
    refuse_foreign(folder, kind, key=key)
    if kind_of(folder) != kind:
        with writing_to(f"{key}={folder}"):
            folder.mkdir(parents=True, exist_ok=True)
            mark(folder, kind)


def mark(folder: Path, kind: str) -> None:
    """Mark a folder as ours. Raises OSError."""
    write_json(folder / MARK, {"kind": kind})


def refuse_foreign(folder: Path, kind: str, *, key: str) -> None:
    """Raise ConfigError unless the folder is new, empty, or marked as `kind`; writes nothing."""
    with writing_to(f"{key}={folder}"):
        if not folder.exists():
            return
        if not folder.is_dir():
            raise ConfigError(f"{key}={folder} is a file: give a folder that may be made.")
        if kind_of(folder) == kind and not is_everybodys(folder):
            return
        held = sorted(entry.name for entry in folder.iterdir() if not _is_nothing(entry.name))
    if is_everybodys(folder) or folder.resolve() == Path.cwd():
        raise ConfigError(f"{key}={folder} is no folder of its own: give a new one.")
    if held and (folder / MARK).exists():
        raise ConfigError(
            f"{key}={folder}: its mark, {MARK}, is not that of a {kind}, or is damaged. A run that "
            "is known to be ours goes on with resume=DIR; else give a new or an empty folder."
        )
    if held:
        raise ConfigError(
            f"{key}={folder} holds files that are not of a {kind} of ours "
            f"({listed(held, 3)}): give a new or an empty folder."
        )
    if (other := kind_of(folder)) not in (None, kind):
        raise ConfigError(f"{key}={folder} is the folder of a {other}: give a new one.")


def _is_nothing(name: str) -> bool:
    """Whether a folder with this file counts as empty; such as a mark that was half written."""
    return name in NOTHING or (name.startswith(f".{MARK}.") and name.endswith(".partial"))


def is_everybodys(folder: Path) -> bool:
    """Whether it is `/` or the user's home."""
    place = folder.resolve()
    try:
        home = Path.home().resolve()
    except RuntimeError:  # a user without a home
        home = None
    return place in (home, Path(place.anchor))


@contextmanager
def writing_to(what: str) -> Iterator[None]:
    """What the system says of a folder or file that cannot be written, as a ConfigError."""
    try:
        yield
    except OSError as error:
        raise unwritable(what, error) from error


def unwritable(what: str, error: OSError) -> ConfigError:
    """What people are told of a folder or file that cannot be written."""
    reason = error.strerror or str(error)
    beside = f" ({error.filename})" if error.filename and str(error.filename) not in what else ""
    return ConfigError(f"{what} cannot be written: {reason}{beside}.")
