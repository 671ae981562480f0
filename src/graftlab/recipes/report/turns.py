"""A row of the data, shortened, and as HTML: its turns, and the place where it stands."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from graftlab.pages.html import esc
from graftlab.recipes.words import texts_in

PARTS = ("system", "user", "assistant", "text")
CLIP = 1200
"""Characters of a turn that are shown."""
TURNS = 12
"""Turns of a row that are shown."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A row to be read by people."""

    place: str
    notes: tuple[str, ...]
    turns: list[tuple[str, str]]
    """(part, text), cut."""

    def html(self) -> str:
        said = "\n".join(
            f'<div class="turn {part}"><span class="part">{part}</span>'
            f'<div class="said" dir="auto">{esc(text)}</div></div>'
            for part, text in self.turns
        )
        return f'<div class="row">{place(self.place, *self.notes)}{said}</div>'


def place(text: str, *notes: str) -> str:
    """Where something stands, with notes that are not empty."""
    told = "".join(f' <span class="note">{esc(note)}</span>' for note in notes if note)
    return f'<span class="place">{esc(text)}</span>{told}'


def turns_in(body: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """(part, text) of everything that a row's body says, in order; parts are those of PARTS."""
    for turn in body.get("messages", ()):
        yield turn["role"], "\n".join(texts_in(turn))
    if "text" in body:
        yield "text", body["text"]


def clipped(body: dict[str, Any]) -> list[tuple[str, str]]:
    """The first turns of a row, each cut; what is left out is counted."""
    found = list(turns_in(body))
    shown = [(part, cut(text)) for part, text in found[:TURNS]]
    more = len(found) - TURNS
    return [*shown, ("other", f"… ({more:,} more turns)")] if more > 0 else shown


def cut(text: str) -> str:
    more = len(text) - CLIP
    return f"{text[:CLIP]} … ({more:,} more characters)" if more > 0 else text
