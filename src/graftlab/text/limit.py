"""A limit on the time that a chat template takes: one that loops for ever ends with a message.

Templates are code of others in Jinja's sandbox, which bounds what they reach and not how long they
run. Signals reach the main thread only, and transformers compiles templates by itself, so a daemon
thread watches the rendering ones and raises in them when their time is over.
"""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from graftlab.errors import ModelError

SECONDS = 20.0
"""For one conversation, which takes under a millisecond; a machine may be busy, or asleep."""
LONGEST = 2**20
"""Characters of a template; those of known models have under 30,000."""
TICK = 0.2
"""Seconds between two looks of the watcher."""


class _TimeOverError(BaseException):
    """Raised into a rendering thread; no Exception, which code of templates may catch."""


@dataclass(slots=True)
class _Watcher:
    """The threads that render now, each with its deadline."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    deadlines: dict[int, float] = field(default_factory=dict)
    over: set[int] = field(default_factory=set)
    thread: threading.Thread | None = None

    def enter(self, me: int, seconds: float) -> None:
        with self.lock:
            self.over.discard(me)  # the error may have come while it was being left
            self.deadlines[me] = time.monotonic() + seconds
            if self.thread is None or not self.thread.is_alive():  # it is not in a forked process
                self.thread = threading.Thread(target=self._watch, name="templates", daemon=True)
                self.thread.start()

    def leave(self, me: int) -> bool:
        """Whether the time was over, and the error is on its way or has come."""
        with self.lock:
            self.deadlines.pop(me, None)
            over = me in self.over
            self.over.discard(me)
            return over

    def _watch(self) -> None:
        while True:
            time.sleep(TICK)
            with self.lock:
                now = time.monotonic()
                for thread in [t for t, deadline in self.deadlines.items() if deadline < now]:
                    del self.deadlines[thread]
                    self.over.add(thread)
                    ctypes.pythonapi.PyThreadState_SetAsyncExc(
                        ctypes.c_ulong(thread), ctypes.py_object(_TimeOverError)
                    )


_WATCHER = _Watcher()


@contextmanager
def in_time(seconds: float | None = None) -> Iterator[None]:
    """Render within the block. Raises ModelError once it has taken `seconds` (default SECONDS)."""
    me, allowed = threading.get_ident(), SECONDS if seconds is None else seconds
    came = over = False
    try:
        _WATCHER.enter(me, allowed)
        try:
            yield
        finally:
            over = _WATCHER.leave(me)
    except _TimeOverError:
        came = True
    if over and not came:  # it ended in the very moment: the error still comes
        with suppress(_TimeOverError):
            time.sleep(TICK)
    if came or over:
        raise ModelError(
            f"the chat template has not come to an end after {allowed:g} s: it seems to loop for "
            "ever. Use another one: model.template=FILE (or chatml)."
        )


def require_finite(source: str) -> None:
    """Raise ModelError for what no watcher can end: powers, which C computes to the last digit, and
    a text that takes longer to compile than to render.
    """
    from jinja2 import TemplateSyntaxError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    if len(source) > LONGEST:
        raise ModelError(
            f"the chat template has {len(source):,} characters, and at most {LONGEST:,} are read: "
            "use another one, model.template=FILE (or chatml)."
        )
    with suppress(TemplateSyntaxError):  # told where it is compiled
        for line, kind, text in ImmutableSandboxedEnvironment().lex(source):
            if kind == "operator" and text == "**":
                raise ModelError(
                    f"the chat template has a power (`**`) in line {line}, which may take for ever."
                )
