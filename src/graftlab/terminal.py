"""The terminal: text of others without its control characters, streams that may be lost.

A run must not end because nobody reads what it says: `train | head -1`, a terminal that is closed,
a redirection to a disk that is full. `steady_streams` puts streams over stdout and stderr that take
every write; where the output is what was asked for, stdout still raises BrokenPipeError.
"""

from __future__ import annotations

import errno
import io
import os
import re
import select
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

_CONTROL = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
"""C0 but tab and line feed, DEL, C1, marks that turn the direction of text, lone surrogates."""

_LOST = (errno.EPIPE, errno.EIO, errno.EBADF, errno.ECONNRESET)
"""What a write says when its reader, or its terminal, is gone for good."""


def printable(text: object, *, one_line: bool = False) -> str:
    r"""`text` with each control character as its escape, such as \x1b; `one_line` does \n, too.

    Terminals obey sequences that begin with ESC or a C1 character: they move the cursor, set the
    title, write to the clipboard.
    """
    safe = _CONTROL.sub(_escaped, str(text))
    return safe.replace("\n", "\\n") if one_line else safe


def tell_traceback(error: BaseException) -> None:
    """An error of ours on standard error, its trace as Python prints it."""
    print(printable("".join(traceback.format_exception(error))), end="", file=sys.stderr)


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


class _Outlet(io.FileIO):
    """A standard stream; once `steady`, it takes every write, whatever becomes of it."""

    def __init__(self, descriptor: int, *, steady: bool) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self.steady = steady

    def write(self, data: Any, /) -> int:
        if self.fileno() == 2:
            _copy(data)
        try:
            while (count := super().write(data)) is None:  # a pipe that others made non-blocking
                select.select([], [self.fileno()], [])
            return count
        except OSError as error:
            if not self.steady:
                raise
            if error.errno in _LOST:  # whatever else writes here, C libraries too, is spared it
                _open_null(self.fileno())
            return len(data)


_log: IO[str] | None = None
_outlets: list[_Outlet] = []


@contextmanager
def steady_streams() -> Iterator[None]:
    """While inside, a lost stderr is no error, nor is a lost stdout after `go_on_without_stdout`.

    Does nothing to streams that are not the process's own, such as those of a test.
    """
    global _log
    for descriptor in (0, 1, 2):  # closed ones would be given to the next file that is opened
        try:
            os.fstat(descriptor)
        except OSError:
            _open_null(descriptor)
    before, outer = (sys.stdout, sys.stderr), list(_outlets)
    for name, number in (("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:  # it was closed before Python began
            setattr(sys, name, open(number, "w", closefd=False))  # noqa: SIM115
    sys.stdout, sys.stderr = _over(sys.stdout, 1), _over(sys.stderr, 2)
    try:
        yield
    finally:
        with suppress(OSError, ValueError):
            sys.stdout.flush()
        with suppress(OSError, ValueError):
            sys.stderr.flush()
        sys.stdout, sys.stderr = before
        _outlets[:] = outer
        if _log is not None and not outer:
            _log.close()
            _log = None


def go_on_without_stdout() -> None:
    """From here on nobody needs to read what is said: it is a report of work, not its product."""
    for outlet in _outlets:
        outlet.steady = True


def is_ours() -> bool:
    """Whether this process is a program of ours, and no test or script that calls a task."""
    return bool(_outlets)


def keep_log(path: Path) -> None:
    """Append to `path`, too, what is said on stderr from here on, and what `log` is given."""
    global _log
    if is_ours():
        if _log is not None:
            _log.close()
        with suppress(OSError):  # whoever needs the folder will say so
            _log = path.open("a", encoding="utf-8", errors="backslashreplace")


def log() -> IO[str] | None:
    """The file that keeps what is said; None where nobody asked for one."""
    return _log


def _copy(data: Any) -> None:
    if _log is not None:
        with suppress(OSError, ValueError):
            _log.write(bytes(data).decode("utf-8", "replace"))
            _log.flush()


def _over(stream: Any, descriptor: int) -> Any:
    """`stream` with an outlet below it, if it is the process's own."""
    buffer = getattr(stream, "buffer", None)
    raw = getattr(buffer, "raw", buffer)  # the same where Python runs unbuffered
    if not isinstance(raw, io.FileIO) or isinstance(raw, _Outlet) or raw.fileno() != descriptor:
        return stream
    stream.flush()
    outlet = _Outlet(descriptor, steady=descriptor == 2)
    _outlets.append(outlet)
    return io.TextIOWrapper(
        io.BufferedWriter(outlet),
        encoding=stream.encoding,
        errors="backslashreplace",  # an arrow on a Latin-1 terminal is no reason to stop either
        line_buffering=descriptor == 2 or stream.line_buffering,
        write_through=stream.write_through,
    )


def _open_null(descriptor: int) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    if null != descriptor:
        os.dup2(null, descriptor)
        os.close(null)
