"""A row of the data as HTML: its turns, and the place where it stands."""

from __future__ import annotations

from collections.abc import Iterable

from graftlab.pages.html import esc


def turns(said: Iterable[tuple[str, str]]) -> str:
    """A conversation, each turn with its part."""
    return "\n".join(
        f'<div class="turn {part}"><span class="part">{part}</span>'
        f'<div class="said" dir="auto">{esc(text)}</div></div>'
        for part, text in said
    )


def place(text: str, *notes: str) -> str:
    """Where something stands, with notes that are not empty."""
    told = "".join(f' <span class="note">{esc(note)}</span>' for note in notes if note)
    return f'<span class="place">{esc(text)}</span>{told}'
