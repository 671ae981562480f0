"""The progress of work that is counted: a bar on a terminal, a plain line now and then elsewhere.

    with Progress("encoding", total=500, console=console()) as progress:
        progress.advance(10, note="3 dropped")

    terminal     encoding ━━━━━━━━━━━━━━━━━━━━━━━━ 10/500  3 dropped 0:00:04 left 03:12
    elsewhere      encoding 10/500  3 dropped, 3:12 left

Elsewhere is a pipe, a file or a log: nothing is drawn there, and nothing said twice.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from graftlab.terminal import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

LINE_SECONDS = 10.0
"""Between two lines where there is no terminal."""


class Row(NamedTuple):
    """What one row shows."""

    done: int
    total: int | None = None
    """None while nobody knows."""
    note: str = ""
    """Further numbers, in words."""
    counted: bool = True
    """Whether `done` and `total` are shown as numbers, too."""


class Progress:
    """One row for each name; a context manager, or to be closed however the work ended."""

    def __init__(
        self,
        *names: str,
        total: int | None = None,
        done: int = 0,
        console: Console | None = None,
        stays: bool = False,
        shown: bool = True,
    ) -> None:
        """`total` and `done` are those of the first row, from which `advance` counts.

        `console`: where it is shown; None is standard error. On a terminal the bars are gone when
        the work is done, unless they are to stay. Without `shown`, nothing is.
        """
        from rich.console import Console

        self._names = names
        self._row = Row(done, total)
        self._console = console or Console(stderr=True)
        self._stays, self._shown = stays, shown
        self._began = self._told = time.perf_counter()
        self._first = done
        self._bars: Bars | None = None
        self._tasks: list[TaskID] = []

    def __enter__(self) -> Progress:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def start(self) -> None:
        """Draw the bars, where there is a terminal."""
        if self._shown and self._console.is_terminal:
            self._draw()
            self._update([self._row])

    def close(self) -> None:
        """Give the terminal back."""
        if self._bars is not None:
            self._bars.stop()
            self._bars = None

    def restart(self) -> None:
        """What is left is estimated from here on: the time until now went into something else."""
        self._began = time.perf_counter()

    def advance(self, count: int = 1, note: str = "") -> None:
        """So much more is done in the first row."""
        self.show([self._row._replace(done=self._row.done + count, note=note)])

    def show(self, rows: Sequence[Row]) -> None:
        """What every row shows from now on; a line, elsewhere, is about the last that has begun."""
        self._row = rows[0]
        if self._bars is not None:
            self._update(rows)
        elif self.due:
            self._told = time.perf_counter()
            begun = [place for place, row in enumerate(rows) if row.done or row.note]
            if begun:
                self._line(self._names[begun[-1]], rows[begun[-1]])

    @property
    def due(self) -> bool:
        """Whether what `show` is given would be seen: a bar is always, a line when it is time."""
        late = time.perf_counter() - self._told > LINE_SECONDS
        return self._bars is not None or (self._shown and late)

    def say(self, text: str) -> None:
        """A line for people above the bar, or among the others."""
        self._console.print(printable(text), highlight=False, soft_wrap=True)

    def _line(self, name: str, row: Row) -> None:
        done = row.done - self._first
        left = ""
        if row.total is not None and done > 0:
            seconds = (time.perf_counter() - self._began) / done * (row.total - row.done)
            left = f", {clock(seconds)} left"
        self.say(f"  {name} {_numbers(row)}{left}")

    def _update(self, rows: Sequence[Row]) -> None:
        assert self._bars is not None, "drawn before"
        for task, row in zip(self._tasks, rows, strict=False):
            self._bars.update(task, completed=row.done, total=row.total, note=_numbers(row))

    def _draw(self) -> None:
        from rich.progress import (
            BarColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[note]}", markup=False),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(compact=True),
            console=self._console,
            transient=not self._stays,
        )
        self._tasks = [
            self._bars.add_task(printable(name), total=None, note="") for name in self._names
        ]
        self._bars.start()


def clock(seconds: float) -> str:
    """`3:12`, or `1:03:12`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _numbers(row: Row) -> str:
    total = "" if row.total is None else f"/{row.total:,}"
    return printable("  ".join(filter(None, (f"{row.done:,}{total}" * row.counted, row.note))))
