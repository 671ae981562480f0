"""Where things are kept that can be made again: tokens, prepared data, a rewriter's answers."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from graftlab.errors import ConfigError
from graftlab.files.checksums import DamagedError, check_folder_once
from graftlab.files.locks import hold
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


_told: set[str] = set()


def tell_damage(text: str) -> None:
    """One line on stderr, once a process."""
    if text not in _told:
        _told.add(text)
        tell(f"! {text}")


def tell(line: str) -> None:
    """One line on stderr."""
    print(printable(line), file=sys.stderr, flush=True)
