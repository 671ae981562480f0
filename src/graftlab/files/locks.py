"""One process at a time: a lock file that says who holds it, free again when its holder dies."""

from __future__ import annotations

import errno
import json
import os
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from graftlab.errors import GraftlabError
from graftlab.files.ownership import LOCK, writing_to
from graftlab.files.reading import UnreadableError, load_json
from graftlab.files.writing import folders_above


class BusyError(GraftlabError):
    """Another process works here; the message says which."""


NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL)
"""What a file system answers that has no locks, such as some network file systems."""


@contextmanager
def hold(
    lock: Path,
    *,
    what: str,
    tell: Callable[[str], None] = lambda line: None,
    wait: Callable[[str], None] | None = None,
) -> Iterator[None]:
    """Hold the lock file for the block; the system lets go of it when the process ends, however.

    `what` begins the message, such as `outputs/run`. Raises BusyError at once where another
    process holds it, with host, process and command; with `wait`, that is told who does, and the
    block begins when it is free. Raises OSError where the file cannot be made. Where the file
    system has no locks, `tell` is told so and the block runs without.
    """
    descriptor = _locked(lock, what, tell, wait)
    try:
        yield
    finally:
        with suppress(OSError):
            lock.unlink()  # while it is ours: whoever has opened it sees that it is gone
        os.close(descriptor)


@contextmanager
def hold_beside(target: Path, *, tell: Callable[[str], None] = lambda line: None) -> Iterator[None]:
    """Hold a file or folder that is made anew, by a lock beside it; folders above it are made.

    Raises BusyError where another process is making it, ConfigError where nothing can be made.
    """
    lock = target.with_name(f".{target.name[:200]}{LOCK}")
    with ExitStack() as stack:
        with writing_to(str(target)):
            stack.enter_context(folders_above(target))
            stack.enter_context(hold(lock, what=str(target), tell=tell))
        yield


def try_lock(path: Path) -> int | None:
    """A descriptor that holds the lock until it is closed; None where somebody else does.

    The file stays. The lock is gone with the process, however that ended. Raises OSError.
    """
    descriptor = _opened(path)
    if not _is_ours(descriptor):
        os.close(descriptor)
        return None
    return descriptor


def _opened(lock: Path) -> int:
    return os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)


def _is_ours(descriptor: int) -> bool:
    """Whether the lock of an open file was free, and is ours from now on. Raises OSError."""
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _locked(
    lock: Path, what: str, tell: Callable[[str], None], wait: Callable[[str], None] | None
) -> int:
    import fcntl

    waited = False
    while True:
        descriptor = _opened(lock)
        try:
            if not _is_ours(descriptor):
                if wait is None:
                    raise BusyError(f"{what} is in use by {_holder(lock)}.")
                if not waited:
                    wait(_holder(lock))
                    waited = True
                fcntl.flock(descriptor, fcntl.LOCK_EX)  # ends with a signal, too
            if not _is_there(descriptor, lock):  # its last holder removed it just now
                os.close(descriptor)
                continue
            os.ftruncate(descriptor, 0)
            who = {"host": socket.gethostname(), "pid": os.getpid()}
            command = " ".join(sys.argv)[:200]
            os.pwrite(descriptor, json.dumps({**who, "command": command}).encode(), 0)
        except BaseException as error:
            if not isinstance(error, OSError) or error.errno not in NO_LOCKS:
                os.close(descriptor)
                raise
            tell(f"! {lock.parent}: no locks on this file system; start no second process there.")
        return descriptor


def _is_there(descriptor: int, lock: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), lock.stat())
    except FileNotFoundError:
        return False


def _holder(lock: Path) -> str:
    try:
        who = load_json(lock.read_bytes())
        return f"process {int(who['pid'])} on {who['host']} ({who['command']})"
    except (OSError, UnreadableError, KeyError, TypeError, ValueError):
        return "another process"
