"""What a process does when the one that started it is gone: save and leave, leaving no orphan.

The parent holds the other end of this process's input, a pipe or a socket. That closes with the
process that holds it, however it ended, on every system.
"""

from __future__ import annotations

import os
import signal
import threading
import time

GRACE_SECONDS = 60.0
"""How long an orphan may take to end its step and save."""


def leave_with_parent() -> None:
    """Watch the input from now on; once it closes, stop like a process that is told to."""
    threading.Thread(target=_watch, name="parent", daemon=True).start()


def _watch() -> None:
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_SECONDS)
    os._exit(128 + signal.SIGKILL)
