"""What a process must have set before torch is loaded, and the signals that end it.

The command line, a rank that torchrun starts, and a script that calls `graftlab.training.start.run`
all come through here. What the user has set stays; children inherit it.
"""

from __future__ import annotations

import gc
import importlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any
from urllib.parse import urlsplit

from graftlab.errors import ConfigError

KEPT_KERNELS = 128
"""Compiled kernels that oneDNN keeps on a CPU. Its own limit is 1,024, and as every row has another
length it gets there (measured over 100 steps: 1,690 MiB with 1,024, 1,170 with 128)."""
SPIN_COUNT = 3000
"""How long a thread of libgomp spins while it waits. Threads that spin long starve each other as
soon as anything else runs (measured: 380 tokens/s against 2,900 beside one busy process); threads
that never spin are slow alone (1,790 against 2,870)."""

HUB = "https://huggingface.co"
HANGUP = getattr(signal, "SIGHUP", None)
"""The terminal was closed, or the connection to it; Windows has no such signal."""
URGENT = (signal.SIGINT, signal.SIGTERM)
"""Signals of which a second one ends the process at once. Of a closed terminal both the system and
the shell tell, so that two SIGHUP are one."""


def prepare_process() -> None:
    """Set both in the environment. Read once, by libgomp when torch loads and by oneDNN later.

    Python puts the current folder before all packages for a child that it starts with -m or -c; a
    `json.py` in a folder of somebody's data is not to be imported.
    """
    os.environ.setdefault("PYTHONSAFEPATH", "1")
    os.environ.setdefault("GOMP_SPINCOUNT", str(SPIN_COUNT))
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(KEPT_KERNELS))


def hub_url() -> str:
    """Where the hub is: $HF_ENDPOINT, or its own address. Raises ConfigError for no address.

    huggingface_hub reads it as it is imported, and stops there with a traceback.
    """
    given = os.environ.get("HF_ENDPOINT") or HUB
    try:
        parts = urlsplit(given)
        known = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        known = False
    if not known:
        raise ConfigError(f"HF_ENDPOINT={given} is no address such as {HUB}: mend or unset it.")
    return given


def import_for_good(module: str) -> None:
    """Import a module and all that it needs, which Python's garbage collector never looks at again.

    It would go through the objects of PyTorch, Lightning and transformers time and again: a run of
    two steps takes 5.1 s of processor time instead of 6.2 (medians of five). For a process of ours
    alone: whatever else is there now is not looked at again either.
    """
    if module in sys.modules:
        return
    gc.disable()
    try:
        importlib.import_module(module)
    finally:
        gc.freeze()
        gc.enable()


def stop_signals() -> tuple[int, ...]:
    """SIGTERM, SIGINT and SIGHUP; without SIGHUP where it is ignored, as under nohup."""
    heeds = HANGUP is not None and signal.getsignal(HANGUP) != signal.SIG_IGN
    return (signal.SIGTERM, signal.SIGINT, *((HANGUP,) if heeds and HANGUP is not None else ()))


@contextmanager
def signals_to(handler: Callable[[int, FrameType | None], None]) -> Iterator[dict[int, Any]]:
    """`handler` gets the stop signals while inside; yields what had them before.

    Of SIGHUP it gets the first only. Outside the main thread, where nobody is signalled, nothing
    is changed.
    """
    seen: set[int] = set()

    def once(number: int, frame: FrameType | None) -> None:
        if number != HANGUP or not seen:
            seen.add(number)
            handler(number, frame)

    previous: dict[int, Any] = {}
    with suppress(ValueError):
        for number in stop_signals():
            previous[number] = signal.signal(number, once)
    try:
        yield previous
    finally:
        for number, before in previous.items():
            signal.signal(number, before)


_most = 1
"""So many urgent signals are answered by Python code; the next one ends the process."""
_answered = 0
"""Those that were a key to the program, such as Ctrl-C at a prompt, and not its end."""


@contextmanager
def second_signal_ends() -> Iterator[None]:
    """While inside, a second SIGINT or SIGTERM ends this process at once, with 128 + its number.

    A thread sees to it, so that it holds as well where the main thread waits in native code (a
    collective, a lock, a driver) and would never come to run a handler, or where cleaning up after
    the first signal hangs. A program that does not have its main thread here has no such end.
    """
    try:
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        before = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
    except (ValueError, OSError):
        yield
        return
    threading.Thread(target=_watch, args=(ours,), name="signals", daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        theirs.close()  # the thread reads the end of it, and ends


@contextmanager
def one_more_signal() -> Iterator[None]:
    """While inside, the second signal is answered too (workers are killed); the third one ends."""
    global _most
    _most += 1
    try:
        yield
    finally:
        _most -= 1


def ctrl_c_answered() -> None:
    """A Ctrl-C has been dealt with, and the program goes on: the next one is a first one again."""
    global _answered
    _answered += 1


@contextmanager
def ctrl_c_to(stop: Callable[[], None]) -> Iterator[None]:
    """While inside, Ctrl-C calls `stop`, and is answered with that."""

    def answer(number: int, frame: FrameType | None) -> None:
        stop()
        ctrl_c_answered()

    before = signal.signal(signal.SIGINT, answer)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _watch(ours: socket.socket) -> None:
    count = 0
    with ours:
        while data := ours.recv(64):
            for number in data:
                count += number in URGENT
                if count - _answered > _most and number in URGENT:
                    _end(number)


def _end(number: int) -> None:
    """Leave without cleaning up: what is on disk is whole, or named as partial."""
    cursor = "\x1b[?25h" if sys.__stdout__ is not None and os.isatty(1) else ""
    name = signal.Signals(number).name
    with suppress(OSError):
        os.write(2, f"{cursor}\n{name}: ended at once; what was saved before is whole.\n".encode())
    os._exit(128 + number)
