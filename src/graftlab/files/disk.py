"""A disk that refuses (full, read-only, not ours, a name too long): told in a line, whoever saw it.

Libraries wrap what the system says in errors of their own; it is looked for in what caused them.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager

from graftlab.errors import GraftlabError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""No room on the disk, none in the quota, none under the limit on the size of a file."""
CLOSED = (errno.EROFS, errno.EACCES, errno.EPERM)
"""A disk that is mounted read-only, a folder of somebody else."""
NO_NAME = (errno.ENAMETOOLONG, errno.ELOOP)
"""A name that no file can have, links that go in a circle."""

_SAID = re.compile(
    r"no space left on device|disk quota exceeded|file too large|read-only file system"
    r"|database or disk is full|attempt to write a readonly database|PytorchStreamWriter failed"
    rf"|\(os error (?:{'|'.join(str(int(number)) for number in FULL)})\)",
    re.IGNORECASE,
)
"""What SQLite, Rust and C++ say of the same."""


def disk_trouble(error: BaseException | None) -> str | None:
    """What is wrong with the disk, in a line; None where `error` is about something else."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, OSError) and error.errno in (*FULL, *CLOSED, *NO_NAME):
            place = f"{error.filename}: " if error.filename else ""
            return f"{place}{error.strerror}"
        if not isinstance(error, GraftlabError) and _SAID.search(str(error)):
            return str(error).strip().splitlines()[0]
        if names_no_home(error):
            return "there is no home folder: set HOME, and GRAFTLAB_CACHE for what is kept"
        error = error.__cause__ or error.__context__
    return None


def names_no_home(error: BaseException) -> bool:
    """Whether it is what `Path.home` and `Path.expanduser` raise for a user without a home."""
    return isinstance(error, RuntimeError) and "home directory" in str(error)


@contextmanager
def disk_errors_explained(what_now: str) -> Iterator[None]:
    """Turn a disk that refuses inside into a GraftlabError that ends with `what_now`."""
    try:
        yield
    except GraftlabError:
        raise
    except Exception as error:
        if (trouble := disk_trouble(error)) is None:
            raise
        raise GraftlabError(f"{trouble}. {what_now}") from error
