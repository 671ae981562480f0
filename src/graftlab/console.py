"""The terminal, in one place: a Rich console that the progress bar and every table share.

What it prints also goes to the log of the run, if one is kept (`graftlab.terminal.keep_log`), as
plain text of 100 columns and without what only moves the cursor.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Any

from graftlab.terminal import log, printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

WIDTH = 100
"""Columns where there is no terminal, so that tables stay whole."""


@cache
def console() -> Console:
    """The console on standard output; no markup, as texts of others may hold [brackets]."""
    kind = _kind()
    probe: Console = kind(markup=False)
    return probe if probe.is_terminal else kind(width=WIDTH, markup=False)


def new_table(
    title: str, headings: Iterable[str], *, left: Collection[str] = (), **how: Any
) -> Table:
    """An empty table whose columns are aligned to the right, but for those `left`."""
    from rich.table import Table

    table = Table(title=title, title_justify="left", **how)
    for heading in headings:
        table.add_column(heading, justify="left" if heading in left else "right")
    return table


def say(text: str) -> None:
    """One line for people: no markup, no control characters, no break inside a path."""
    console().print(printable(text), highlight=False, soft_wrap=True)


@cache
def _kind() -> Any:
    """The class of the console: Rich is imported where something is said."""
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.control import Control
    from rich.segment import Segment
    from rich.text import Text

    class Safe(Console):
        """By whatever is printed: tables and bars, too, show no control character of a text."""

        def render_str(self, text: str, **options: Any) -> Text:
            return super().render_str(printable(text), **options)  # before it is laid out

        def render(
            self, renderable: RenderableType, options: ConsoleOptions | None = None
        ) -> Iterator[Segment]:
            for segment in super().render(renderable, options):
                text, style, control = segment
                yield segment if control else Segment(printable(text), style)

    class Logged(Safe):
        """And what is said stands in the run's log, too."""

        def print(self, *objects: Any, **how: Any) -> None:
            super().print(*objects, **how)
            file = log()
            if file is None or any(isinstance(one, Control) for one in objects):
                return
            plain = Safe(file=file, width=WIDTH, color_system=None, markup=False)
            with suppress(OSError, ValueError):
                plain.print(*objects, **how)

        def on_broken_pipe(self) -> None:
            """Rich would end the process, with code 1 and no word; the door decides instead."""
            raise  # what Rich has just caught

    return Logged
