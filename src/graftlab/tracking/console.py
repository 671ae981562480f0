"""The terminal, in one place: a Rich console that the progress bar and every table share."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from graftlab.terminal import printable

if TYPE_CHECKING:
    from rich.console import Console


@cache
def console() -> Console:
    """The console on standard output; 100 columns when it is no terminal, so tables stay whole."""
    from rich.console import Console

    probe = Console()
    return probe if probe.is_terminal else Console(width=100)


def say(text: str) -> None:
    """One line for people: no markup, no control characters, no break inside a path."""
    console().print(printable(text), markup=False, highlight=False, soft_wrap=True)
