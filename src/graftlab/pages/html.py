"""Small pieces of HTML. Whatever comes from data goes through `esc`; everything else is ours."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

# Control characters and lone surrogates are not allowed in HTML; direction marks would turn
# around what stands beside them.
_ODD = re.compile(
    "[\x00-\x08\x0b\x0c\x0d-\x1f\x7f-\x9f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2064"
    "\u2066-\u2069\ufeff\ufdd0-\ufdef\ufffe\uffff\ud800-\udfff]"
)

GENERATOR = '<meta name="generator" content="graftlab">'
"""By which a page of ours is known again."""


def shell(title: str, body: str, *, style: str = "", scripts: Sequence[str] = ()) -> str:
    """A whole page that needs nothing else; `style` is added to that of all pages.

    `scripts` run in their order at the end of the body; none of them may hold `</script`.
    """
    common = (Path(__file__).parent / "style.css").read_text(encoding="utf-8")
    last = "".join(f"<script>\n{script}\n</script>\n" for script in scripts)
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n{GENERATOR}\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{common}{style}</style>\n</head>\n"
        f"<body>\n{body}\n{last}</body>\n</html>\n"
    )


def embedded(name: str, data: object) -> str:
    """Data for a page's script, as JSON that cannot end its element whatever its texts hold."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    text = text.encode("utf-8", "backslashreplace").decode()  # lone surrogates, as JSON's \udxxx
    return f'<script type="application/json" id="{name}">{text}</script>'


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


def folded(summary: str, content: str, *, shown: bool = False) -> str:
    """A part that the reader opens; works without scripts, and is open on paper."""
    mark = " open" if shown else ""
    return f"<details{mark}><summary>{summary}</summary>\n{content}\n</details>"
