"""Checksums beside what is written and read again, so that a flipped byte is noticed.

    FILE, FILE.xxh3             one file: its checksum, as text
    FILE, FILE.xxh3             one that grows: "BYTES CHECKSUM" of its beginning
    FILE                        a YAML file: "# xxh3 CHECKSUM ..." of what follows its first line
    FOLDER/checksums.json       {"NAME": "checksum", ...} of the files of a folder

A checksum is written before the file it is of appears: a kill between the two leaves one without
the other, never a good file with a wrong one.

XXH3 with 128 bits (xxHash 0.8) runs at the speed of memory. It finds accidents, not forgeries:
who can change a file can change its checksum.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from graftlab.errors import GraftlabError
from graftlab.files.reading import LARGEST_YAML, UnreadableError, read_json, read_text
from graftlab.files.writing import atomic_file, publish, sync_file, write_atomic

CHECKSUMS = "checksums.json"
SUFFIX = ".xxh3"
HEAD = "# xxh3 {} (of the lines below: remove this one after a change by hand)\n"
_HEAD = re.compile(rb"# xxh3 ([0-9a-f]{32}) \(of the lines below: [^\n]*\)\n")
_PIECE = 2**22


class DamagedError(GraftlabError, ValueError):
    """A file that is not as it was written; the message names it."""


def checksum(file: Path, *, size: int | None = None) -> str:
    """32 hex digits of the file's content, or of its first `size` bytes.

    Raises OSError, and DamagedError for a device or a pipe, which may never end.
    """
    import xxhash

    if not stat.S_ISREG(file.stat().st_mode):
        raise DamagedError(f"{file} is no regular file")

    digest = xxhash.xxh3_128()
    buffer = bytearray(_PIECE)
    view = memoryview(buffer)
    left = size
    with file.open("rb", buffering=0) as stream:
        while left != 0 and (got := stream.readinto(view if left is None else view[:left])):
            digest.update(view[:got])
            left = None if left is None else left - got
    return digest.hexdigest()


def checksum_of(content: bytes) -> str:
    """32 hex digits of what is in memory."""
    import xxhash

    return xxhash.xxh3_128_hexdigest(content)


def beside(file: Path) -> Path:
    """Where the checksum of one file lies."""
    return file.with_name(file.name + SUFFIX)


def write_checksum(file: Path, *, of: Path | None = None) -> None:
    """Write the checksum that belongs to `file`, read from `of` while it has another name yet."""
    write_atomic(beside(file), checksum(of or file) + "\n")


@contextmanager
def checked_file(path: Path) -> Iterator[Path]:
    """`atomic_file`, with the checksum of what was written beside `path`, which is there first."""
    with atomic_file(path) as draft:
        yield draft
        write_checksum(path, of=draft)


def publish_checked(draft: Path, path: Path) -> None:
    """Give a file that was written under another name its own, synced, the checksum first."""
    sync_file(draft)
    write_checksum(path, of=draft)
    publish(draft, path)


def write_checked(file: Path, text: str) -> None:
    """Write a small file and the checksum beside it, which is there first."""
    with checked_file(file) as draft:
        draft.write_text(text, encoding="utf-8", newline="")


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


def is_whole(file: Path, *, tell: Callable[[str], None] = lambda problem: None) -> bool:
    """Whether a file is there and, where it has a checksum, as it was written.

    `tell` is given what is wrong with one that is there and is not.
    """
    try:
        if not file.is_file():
            return False
        check_file(file)
    except (DamagedError, OSError) as error:
        tell(str(error))
        return False
    return True


def remove(file: Path) -> None:
    """Delete a file with the checksum beside it."""
    file.unlink(missing_ok=True)
    beside(file).unlink(missing_ok=True)


def write_beginning(file: Path) -> None:
    """Write the checksum of a file that grows, as far as it is by now."""
    size = file.stat().st_size
    write_atomic(beside(file), f"{size} {checksum(file, size=size)}\n")


class Appended:
    """A file that grows by whole lines, and after every one a checksum of all of it beside it."""

    def __init__(self, file: Path) -> None:
        """Go on behind what is there and has been checked. Raises DamagedError."""
        import xxhash

        self.file = file
        self.size = (check_beginning(file) or 0) if file.exists() else 0
        self._digest = xxhash.xxh3_128()
        if self.size:
            os.truncate(file, self.size)
            self._digest.update(file.read_bytes())
        else:
            file.unlink(missing_ok=True)

    def add(self, line: bytes) -> None:
        """Append a line; it is on disk when this returns."""
        with self.file.open("ab") as stream:
            stream.write(line)
            stream.flush()
            os.fsync(stream.fileno())
        self.size += len(line)
        self._digest.update(line)
        write_atomic(beside(self.file), f"{self.size} {self._digest.hexdigest()}\n")


def check_beginning(file: Path) -> int | None:
    """How many bytes of a growing file have been checked; None where there is no checksum.

    Raises DamagedError where they are not what was written. Whatever follows is newer.
    """
    try:
        size, _, wanted = beside(file).read_text(encoding="ascii").strip().partition(" ")
        length = int(size)
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise DamagedError(f"{beside(file)} holds no checksum") from error
    if file.stat().st_size < length or checksum(file, size=length) != wanted:
        raise DamagedError(f"{file} is not as it was written: its checksum is another")
    return length


def with_head(text: str) -> str:
    """A YAML text with its checksum as a comment in the first line."""
    return HEAD.format(checksum_of(text.encode())) + text


def check_head(file: Path) -> bool:
    """Whether the first line is a checksum of the others; raises DamagedError if of others."""
    content = read_text(file, most=LARGEST_YAML).encode()
    found = _HEAD.match(content)
    if found is None and b"xxh3" not in content[: len(HEAD) + 32]:
        return False
    if found is None or checksum_of(content[found.end() :]) != found[1].decode():
        raise DamagedError(
            f"{file} is not as it was written: the checksum in its first line is another. If the "
            "change was yours, remove that line"
        )
    return True


def write_checksums(
    folder: Path, names: Collection[str] | None = None, *, more: Mapping[str, str] | None = None
) -> None:
    """Write `checksums.json` of every file below `folder`, itself left out.

    Of those in `names` alone, if given; `more` are checksums of files that come later.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    named = {path.relative_to(folder).as_posix(): path for path in files}
    sums = {
        name: checksum(path)
        for name, path in named.items()
        if path.name != CHECKSUMS and (names is None or name in names)
    }
    sums |= more or {}
    write_atomic(folder / CHECKSUMS, json.dumps(sums, indent=2, ensure_ascii=False) + "\n")


def check_folder(
    folder: Path, names: Collection[str] | None = None, *, without: Collection[str] = ()
) -> bool:
    """Whether the folder has checksums; raises DamagedError naming every file that fails them.

    `names` are the files that will be read, where the others do not matter; those `without` do not.
    """
    try:
        sums = read_json(folder / CHECKSUMS)
    except FileNotFoundError:
        return False
    except UnreadableError as error:
        raise DamagedError(str(error)) from error
    if not isinstance(sums, dict):
        raise DamagedError(f"{folder / CHECKSUMS} holds no checksums")
    wanted = {
        name: value
        for name, value in sums.items()
        if (names is None or name in names) and name not in without
    }
    bad = [str(folder / name) for name, value in wanted.items() if not _holds(folder, name, value)]
    if bad:
        raise DamagedError(f"not as written, by {CHECKSUMS}: {', '.join(bad)}")
    return True


def check_member(file: Path) -> bool:
    """Whether the folder of `file` has a checksum of it; raises DamagedError if of another."""
    return check_folder(file.parent, [file.name])


_known: dict[tuple[Path, frozenset[str] | None], object] = {}


def check_folder_once(folder: Path, names: Collection[str] | None = None) -> bool:
    """`check_folder`, but files that have not been written to since are not read again."""
    key = folder, None if names is None else frozenset(names)
    state = [
        (str(path), about.st_mtime_ns, about.st_size)
        for path in sorted(folder.rglob("*"))
        for about in [path.stat()]
    ]
    if _known.get(key) == state:
        return True
    if found := check_folder(folder, names):
        _known[key] = state
    return found


def _holds(folder: Path, name: str, wanted: object) -> bool:
    """Whether the file has this checksum; a name that leads out of the folder has none."""
    parts = Path(name).parts
    if not parts or Path(name).is_absolute() or ".." in parts:
        return False
    file = folder / name
    return file.is_file() and checksum(file) == wanted
