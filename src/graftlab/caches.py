"""Where things are kept that can be made again: tokens, prepared data, replies of models.

CACHE/NAME.jsonl      rows by key, one a line, appended as they come (`RowCache`):
{"key": ..., "text": ..., "xxh3": ...}
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from graftlab.errors import ConfigError
from graftlab.files.checksums import DamagedError, check_folder_once, checksum_of
from graftlab.files.locks import hold
from graftlab.files.reading import load_json
from graftlab.terminal import printable


def default_cache() -> Path:
    """`$GRAFTLAB_CACHE`, or `~/.cache/graftlab`. Raises ConfigError where there is no home."""
    if told := os.environ.get("GRAFTLAB_CACHE"):
        return Path(told)
    try:
        return Path.home() / ".cache" / "graftlab"
    except RuntimeError as error:  # a user id that no account has, and no $HOME
        raise ConfigError(
            "This user has no home folder for the cache: let GRAFTLAB_CACHE name a folder."
        ) from error


def is_intact(folder: Path) -> bool:
    """Whether a folder of the cache is there and as it was made; one that is not is named.

    What was checked once is checked again when a file of it has been written to.
    """
    if not folder.is_dir():
        return False
    try:
        if check_folder_once(folder):
            return True
        problem = f"{folder} has no checksums"
    except (DamagedError, OSError) as error:
        problem = str(error)
    tell_damage(f"{problem}: it is made anew.")
    return False


@contextmanager
def made_alone(folder: Path) -> Iterator[None]:
    """Hold a folder of the cache that is to be made; whoever else wants it waits, and is told."""
    folder.parent.mkdir(parents=True, exist_ok=True)

    def wait(holder: str) -> None:
        tell(f"{holder} makes {folder}; waiting for it.")

    lock = folder.with_name(f".{folder.name}.lock")
    with hold(lock, what=str(folder), tell=tell, wait=wait):
        yield


@contextmanager
def made_alone_if_possible(folder: Path) -> Iterator[None]:
    """`made_alone`, as far as the disk lets it: the block begins in any case."""
    with ExitStack() as stack:
        with suppress(OSError):
            stack.enter_context(made_alone(folder))
        yield


class RowCache:
    """Rows by key in one file; safe for threads, and for a process that is killed while it writes.

    `xxh3` in a line is the checksum of the line without it; a row that fails it is not there.
    """

    def __init__(self, path: Path) -> None:
        """Read what is there. Raises ConfigError where nothing can be kept."""
        self.path = path
        self.damaged = 0
        self._lock = threading.Lock()
        self._rows: dict[str, dict[str, Any]] = {}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.exists():
                self._read()
        except OSError as error:
            raise ConfigError(
                f"the cache {path} cannot be used: {error.strerror}. Name a folder that may be "
                "written, with cache=DIR or in GRAFTLAB_CACHE."
            ) from error

    def __len__(self) -> int:
        return len(self._rows)

    def _read(self) -> None:
        data = self.path.read_bytes()
        *lines, torn = data.split(b"\n")  # U+2028 ends no line here
        for line in [*lines, torn]:
            try:
                row = load_json(line)
                if row.pop("xxh3") != checksum_of(_line(row)):
                    raise ValueError("damaged")
                self._rows[str(row.pop("key"))] = row
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                self.damaged += bool(line) and line is not torn  # a process died writing that one
        if self.damaged:
            tell_damage(
                f"{self.path}: lines that are not as they were written: {self.damaged}. Their "
                "answers are asked for again."
            )
        if data and not data.endswith(b"\n"):
            with self.path.open("ab") as file:
                file.write(b"\n")

    def get(self, key: str) -> dict[str, Any] | None:
        return self._rows.get(key)

    def put(self, key: str, row: dict[str, Any]) -> None:
        """Keep a row of plain JSON; it is on disk when this returns."""
        whole = {"key": key, **row}
        line = _line(whole | {"xxh3": checksum_of(_line(whole))}) + b"\n"
        with self._lock:
            with self.path.open("ab") as file:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
            self._rows[key] = row


def _line(row: dict[str, Any]) -> bytes:
    return json.dumps(row, ensure_ascii=False).encode("utf-8", "surrogatepass")


_told: set[str] = set()


def tell_damage(text: str) -> None:
    """One line on stderr, once a process."""
    if text not in _told:
        _told.add(text)
        tell(f"! {text}")


def tell(line: str) -> None:
    """One line on stderr."""
    print(printable(line), file=sys.stderr, flush=True)
