"""A program of others on the PATH while it runs: what it said last, and its end with ours.

It may hang, flood its output, be killed, or be a script that starts another: what it started ends
with it, and of what it says the end alone is kept.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import IO

from graftlab.errors import Interrupted, ModelError
from graftlab.process import signals_to

ENDING = 10.0
"""Seconds that it may take to end before it is killed."""
TICK = 0.05
"""Seconds between two looks at it."""
SAID = 2**14
"""Bytes of its output that are kept."""


class Program:
    """One that has been started."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None, "a pipe"
        self._process, self._said = process, b""
        self._reader = threading.Thread(target=self._read, args=(process.stdout,), daemon=True)
        self._reader.start()

    def _read(self, pipe: IO[bytes]) -> None:
        with pipe:
            while part := os.read(pipe.fileno(), SAID):
                self._said = (self._said + part)[-SAID:]

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    def code(self, progress: Callable[[], object], *, still: float) -> int | None:
        """Its exit code once it has ended; None where `progress` was the same for `still` s."""
        seen, since = progress(), time.monotonic()
        while not self.ended:
            time.sleep(TICK)
            if (now := progress()) != seen:
                seen, since = now, time.monotonic()
            elif time.monotonic() - since > still:
                return None
        return self._process.returncode

    def told(self) -> str:
        """How it ended, and its last lines."""
        code = self._process.poll()
        how = "it was stopped" if code is None else f"exit code {code}"
        if code is not None and code < 0:
            how = f"killed by {signal.Signals(-code).name}"
        self._reader.join(1.0)  # what is still in the pipe
        lines = self._said.decode(errors="replace").split()
        return f"({how}): {' '.join(lines)[-300:]}"

    def end(self) -> None:
        """With all that it started, where it has not ended by itself."""
        if self.ended:
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            with suppress(OSError):  # none of them is left
                os.killpg(self._process.pid, number)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(ENDING)
        self._reader.join(1.0)


@contextmanager
def running(words: Sequence[str], folder: Path | None = None) -> Iterator[Program]:
    """A program, ended with the block, also where a signal ends that.

    Raises ModelError where it cannot be started, Interrupted for SIGTERM and SIGHUP.
    """
    with signals_to(_stop):
        try:
            process = subprocess.Popen(
                list(words),
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            raise ModelError(f"{words[0]} cannot be started: {error.strerror}.") from error
        program = Program(process)
        try:
            yield program
        finally:
            program.end()


def _stop(number: int, frame: FrameType | None) -> None:
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise Interrupted(f"stopped by {signal.Signals(number).name}.", 128 + number)
