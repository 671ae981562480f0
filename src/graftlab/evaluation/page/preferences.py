"""What people and judges preferred, on the page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graftlab.evaluation.wording import preferred_in
from graftlab.pages.html import esc, section, table

if TYPE_CHECKING:
    from graftlab.evaluation.results import Results


def preferences(found: Results) -> str:
    """The section, or nothing where nobody was asked."""
    rows, notes = [], []
    for one in found.preferences:
        notes += [f"<p>{esc(note)}</p>" for note in one.notes()]
        for pair in one.as_json()["pairs"]:
            counts = [str(pair[key]) for key in ("won", "lost", "ties", "compared")]
            rows.append([esc(one.by), esc(pair["of"]), esc(pair["against"]), *counts])
    if not rows:
        return ""
    heads = ["by", "model", "against", "won", "lost", "ties", "prompts"]
    lead = "Whose reply is preferred; replies that are the same are ties."
    return section("preferences", "Preferences", *notes, table("wwwnnnn", heads, rows), lead=lead)


def preferred(found: Results, place: int) -> str:
    """What was preferred on one prompt."""
    told = "".join(f"<div>{esc(line)}</div>" for line in preferred_in(found, place))
    return f'<div class="scores">{told}</div>' if told else ""
