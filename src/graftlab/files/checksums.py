"""Checksums beside what is written and read again, so that a flipped byte is noticed.

    FILE, FILE.xxh3             one file: its checksum, as text
    FOLDER/checksums.json       {"NAME": "checksum", ...} of the files of a folder

XXH3 with 128 bits (xxHash 0.8) runs at the speed of memory. It finds accidents, not forgeries:
who can change a file can change its checksum.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path

from graftlab.files.reading import UnreadableError, read_json
from graftlab.files.writing import write_atomic

CHECKSUMS = "checksums.json"
SUFFIX = ".xxh3"
_PIECE = 2**22


class DamagedError(ValueError):
    """A file that is not as it was written; the message names it."""


def checksum(file: Path) -> str:
    """32 hex digits of the file's content. Raises OSError."""
    import xxhash

    digest = xxhash.xxh3_128()
    buffer = bytearray(_PIECE)
    view = memoryview(buffer)
    with file.open("rb", buffering=0) as stream:
        while size := stream.readinto(buffer):
            digest.update(view[:size])
    return digest.hexdigest()


def beside(file: Path) -> Path:
    """Where the checksum of one file lies."""
    return file.with_name(file.name + SUFFIX)


def write_checksum(file: Path, *, of: Path | None = None) -> None:
    """Write the checksum that belongs to `file`, read from `of` while it has another name yet."""
    write_atomic(beside(file), checksum(of or file) + "\n")


def check_file(file: Path) -> bool:
    """Whether there is a checksum beside `file`; raises DamagedError where it is another's."""
    try:
        wanted = beside(file).read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return False
    except UnicodeDecodeError:
        wanted = ""
    if checksum(file) != wanted:
        raise DamagedError(f"{file} is not as it was written: its checksum is another")
    return True


def write_checksums(folder: Path) -> None:
    """Write `checksums.json` of every file below `folder`, itself left out."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    sums = {
        path.relative_to(folder).as_posix(): checksum(path)
        for path in files
        if path.name != CHECKSUMS
    }
    write_atomic(folder / CHECKSUMS, json.dumps(sums, indent=2, ensure_ascii=False) + "\n")


def check_folder(folder: Path, names: Collection[str] | None = None) -> bool:
    """Whether the folder has checksums; raises DamagedError naming every file that fails them.

    `names` are the files that will be read, where the others do not matter.
    """
    try:
        sums = read_json(folder / CHECKSUMS)
    except FileNotFoundError:
        return False
    except UnreadableError as error:
        raise DamagedError(str(error)) from error
    if not isinstance(sums, dict):
        raise DamagedError(f"{folder / CHECKSUMS} holds no checksums")
    wanted = {name: value for name, value in sums.items() if names is None or name in names}
    bad = [str(folder / name) for name, value in wanted.items() if not _holds(folder, name, value)]
    if bad:
        raise DamagedError(f"not as written, by {CHECKSUMS}: {', '.join(bad)}")
    return True


def _holds(folder: Path, name: str, wanted: object) -> bool:
    """Whether the file has this checksum; a name that leads out of the folder has none."""
    parts = Path(name).parts
    if not parts or Path(name).is_absolute() or ".." in parts:
        return False
    file = folder / name
    return file.is_file() and checksum(file) == wanted
