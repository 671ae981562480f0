"""The lines of a chat: typed at a terminal, with line editing, or read from a pipe.

At a terminal everything is on the screen. Elsewhere standard output holds the replies alone, each
ending with a line end; what else is said goes to standard error.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import TYPE_CHECKING

from graftlab.errors import ConfigError
from graftlab.generation.show import write
from graftlab.process import ctrl_c_answered, ctrl_c_to
from graftlab.terminal import printable

if TYPE_CHECKING:
    from rich.console import Console

    from graftlab.chat.session import ChatReply

PROMPT = "> "
MORE = ". "
"""Asks for the next line of a message; the line before it ended with a backslash."""


class Window:
    """Where a chat is read and written."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.interactive = sys.stdin.isatty() and console.is_terminal
        if self.interactive:
            with suppress(ImportError):  # Windows has none
                import readline  # noqa: F401  (`input` then edits lines and remembers them)

    def messages(self) -> Iterator[tuple[str, str]]:
        """(where it stands, message) up to the end of the input; empty ones are left out.

        Raises ConfigError for what is no text.
        """
        number = 0
        while True:
            lines: list[str] = []
            try:
                while not lines or lines[-1].endswith("\\"):
                    number += 1
                    lines.append(self._line(MORE if lines else PROMPT))
            except KeyboardInterrupt:
                if not self.interactive:
                    raise
                ctrl_c_answered()
                self.note("\nCtrl-D or /quit ends the chat.")
                continue
            except EOFError:
                if self.interactive:
                    self.note("")
                return
            text = "\n".join([*(line[:-1] for line in lines[:-1]), lines[-1]])
            if text.strip():
                yield f"stdin:{number}", text.strip()

    def _line(self, prompt: str) -> str:
        if self.interactive:
            return input(prompt)
        try:
            line = sys.stdin.readline()
        except UnicodeDecodeError as error:
            raise ConfigError(f"stdin is not {error.encoding} text.") from error
        if not line:
            raise EOFError
        return line.rstrip("\n")

    def hear(self, speak: Callable[..., ChatReply], name: str = "") -> None:
        """The reply of `speak(on_text=..., listen=...)`, as it comes; Ctrl-C stops it at a
        terminal, and elsewhere ends the chat.
        """
        if self.interactive and name:
            write(self.console, f"{name}\n", style="bold")
        told = speak(on_text=lambda piece: write(self.console, piece), listen=self._listen)
        write(self.console, "\n")
        self.note(told.caption)

    def _listen(self, stop: Callable[[], None]) -> AbstractContextManager[None]:
        return ctrl_c_to(stop) if self.interactive else nullcontext()

    def note(self, text: str) -> None:
        """A line that is no reply."""
        if self.interactive:
            write(self.console, f"{text}\n", style="dim")
        else:
            print(printable(text), file=sys.stderr)
