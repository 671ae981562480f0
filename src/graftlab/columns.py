"""Two columns of text, as wide as the terminal."""

from __future__ import annotations

import shutil
import textwrap


def table(rows: dict[str, str]) -> list[str]:
    """Two columns; the second wraps at the width of the terminal."""
    width = min(shutil.get_terminal_size((100, 24)).columns, 110)
    first = max(len(name) for name in rows) + 4
    lines = []
    for name, text in rows.items():
        wrapped = textwrap.wrap(
            text, max(width - first, 30), break_on_hyphens=False, break_long_words=False
        )
        lines.append(f"  {name.ljust(first - 2)}{wrapped[0] if wrapped else ''}".rstrip())
        lines += [" " * first + more for more in wrapped[1:]]
    return lines
