"""Small pieces of HTML. Whatever comes from a row goes through `esc`; everything else is ours."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape

from graftlab.recipes.report.lots import PARTS

# Control characters and lone surrogates are not allowed in HTML; direction marks would turn
# around what stands beside them.
_ODD = re.compile(
    "[\x00-\x08\x0b\x0c\x0d-\x1f\x7f-\x9f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2064"
    "\u2066-\u2069\ufeff\ufdd0-\ufdef\ufffe\uffff\ud800-\udfff]"
)


def esc(text: object) -> str:
    """Text as HTML shows it; invisible and forbidden characters as their numbers."""
    return _ODD.sub(_number, escape(str(text)))


def attribute(text: object) -> str:
    """Text as the value of an attribute, where no tags may stand."""
    return _ODD.sub("\ufffd", escape(str(text)))


def _number(found: re.Match[str]) -> str:
    return f'<span class="odd">U+{ord(found[0]):04X}</span>'


def count(number: int) -> str:
    return f"{number:,}"


def percent(part: int, whole: int) -> str:
    """`0.4 %`; what is there is never told as nothing."""
    if not whole:
        return "–"
    share = 100 * part / whole
    if 0 < share < 0.1:
        return "&lt; 0.1 %"
    if 99.9 < share < 100:
        return "&gt; 99.9 %"
    return f"{share:.1f} %" if share < 10 else f"{share:.0f} %"


def section(name: str, title: str, *content: str, lead: str = "") -> str:
    intro = f'<p class="lead">{lead}</p>' if lead else ""
    body = "\n".join(content)
    return f'<section id="{name}">\n<h2>{title}</h2>\n{intro}\n{body}\n</section>'


def table(columns: str, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of HTML cells; `columns` has a letter for each: w for words, n for numbers."""
    kinds = [' class="n"' if letter == "n" else "" for letter in columns]
    top = "".join(
        f'<th scope="col"{kind}>{head}</th>' for kind, head in zip(kinds, heads, strict=True)
    )
    body = "\n".join(
        "<tr>"
        + "".join(f"<td{kind}>{cell}</td>" for kind, cell in zip(kinds, row, strict=True))
        + "</tr>"
        for row in rows
    )
    return (
        f'<div class="wide"><table><thead><tr>{top}</tr></thead>\n'
        f"<tbody>{body}</tbody></table></div>"
    )


def bar(part: int, whole: int) -> str:
    """A share as a thin horizontal bar; the numbers stand beside it."""
    width = 100 * part / whole if whole else 0
    return f'<span class="bar"><span style="width:{width:.1f}%"></span></span>'


def turns(said: Iterable[tuple[str, str]]) -> str:
    """A conversation, each turn with its part."""
    return "\n".join(
        f'<div class="turn {part if part in PARTS else "other"}"><span class="part">{esc(part)}'
        f'</span><div class="said" dir="auto">{esc(text)}</div></div>'
        for part, text in said
    )


def place(text: str, *notes: str) -> str:
    """Where something stands, with notes that are not empty."""
    told = "".join(f' <span class="note">{esc(note)}</span>' for note in notes if note)
    return f'<span class="place">{esc(text)}</span>{told}'


def folded(summary: str, content: str, *, shown: bool = False) -> str:
    """A part that the reader opens; works without scripts, and is open on paper."""
    mark = " open" if shown else ""
    return f"<details{mark}><summary>{summary}</summary>\n{content}\n</details>"
