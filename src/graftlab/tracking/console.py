"""The terminal, in one place: a Rich console that the progress bar and every table share."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

from graftlab.terminal import printable

if TYPE_CHECKING:
    from rich.console import Console


@cache
def console() -> Console:
    """The console on standard output; 100 columns when it is no terminal, so tables stay whole."""
    made = _console_class()
    probe = made(markup=False)  # texts of others may hold [brackets]
    return probe if probe.is_terminal else made(width=100, markup=False)


@cache
def _console_class() -> type[Console]:
    """Rich's console, by whatever is printed: tables and bars, too, show no control character."""
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment
    from rich.text import Text

    class SafeConsole(Console):
        def render_str(self, text: str, **options: Any) -> Text:
            return super().render_str(printable(text), **options)  # before it is laid out

        def render(
            self, renderable: RenderableType, options: ConsoleOptions | None = None
        ) -> Iterator[Segment]:
            for segment in super().render(renderable, options):
                text, style, control = segment
                yield segment if control else Segment(printable(text), style)

    return SafeConsole


def say(text: str) -> None:
    """One line for people: no markup, no control characters, no break inside a path."""
    console().print(printable(text), highlight=False, soft_wrap=True)
