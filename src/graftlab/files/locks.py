"""One process at a time: a lock file that says who holds it, free again when its holder dies."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from graftlab.errors import GraftlabError
from graftlab.files.reading import UnreadableError, load_json


class BusyError(GraftlabError):
    """Another process works here; the message says which."""


@contextmanager
def hold(lock: Path, *, what: str) -> Iterator[None]:
    """Hold the lock file for the block; the system lets go of it when the process ends, however.

    `what` begins the message, such as `outputs/run`. Raises BusyError at once where another
    process holds it, with host, process and command; OSError where the file cannot be made.
    """
    import fcntl

    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BusyError(f"{what} is in use by {_holder(lock)}.") from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, _me().encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _me() -> str:
    command = " ".join(sys.argv)[:200]
    return json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "command": command})


def _holder(lock: Path) -> str:
    try:
        who = load_json(lock.read_bytes())
        return f"process {int(who['pid'])} on {who['host']} ({who['command']})"
    except (OSError, UnreadableError, KeyError, TypeError, ValueError):
        return "another process"
