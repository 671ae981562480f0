"""The marks by which debris is known: layout and the few words printers and editors use."""

from __future__ import annotations

import re
from collections.abc import Sequence

LICENCE = "licence or publisher's text"
FRONT = "preface or other front matter"
BACK = "appendix or other back matter"
CONTENTS = "table of contents"
HEADING = "heading"
PAGE = "page number or running head"
FOOTNOTE = "footnote"
MARKER = "footnote marker"
NOTE = "editor's note"
ORNAMENT = "ornament"
EPIGRAPH = "epigraph"
VERSE = "verse, list or table"

START = re.compile(
    r"^.*(?:\*{3} ?START OF (?:THE|THIS) PROJECT GUTENBERG|\*END\*? ?THE SMALL PRINT).*$",
    re.M | re.I,
)
END = re.compile(
    r"^.*(?:\*{3} ?END OF (?:THE|THIS) PROJECT GUTENBERG"
    r"|^End of (?:the |this )?Project Gutenberg).*$",
    re.M | re.I,
)
INLINE_NOTE = re.compile(
    r"\[\s*(?:(?:the )?(?:transcriber|editor|translator|publisher|redactor|author)(?:'s|s'|s)?\b"
    r"|ed\.|trans\.|tr\.|eds\.|illustration|sidenote|note\b|footnote|greek|hebrew|music|blank page"
    r"|decoration|frontispiece|sic\b|handwritten|image|pg\b|p\.|page\b)"
    r"(?:[^\[\]]|\[[^\[\]]*\]){0,3000}\]|\{\d{1,4}\}",
    re.I,
)
"""A bracketed note of any length (one level of brackets inside), or a page number in braces."""
_PAGE_NOTE = re.compile(r"\[\s*(?:pg|p\.|page)\b|\{", re.I)
_FOOTNOTE_NOTE = re.compile(r"\[\s*footnote", re.I)

ORNAMENT_LINE = re.compile(r"[\W_]+|(?:the )?end\.?|finis\.?", re.I)
PAGE_LINE = re.compile(r"[-—~\[(|\s]*(?:page\s+)?(?:\d{1,4}|[ivxlc]{1,7})[-—~\])|\s]*", re.I)
ROMAN_LINE = re.compile(r"\s*[IVXLC]{1,7}\.?\s*")
NUMBERED_PAGE = re.compile(r"^\s*\d+\s+\D|\D\s\d+\s*$")
"""A line that begins or ends with a figure, as running heads do."""
PAGE_FIGURES = re.compile(r"\b(?:\d+|[ivxlc]+)\b")

_NUMBER_WORD = (
    r"(?:\d+|[ivxlc]+|(?:the )?(?:one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve"
    r"|\w+teen|twenty|thirty|forty|fifty|first|second|third|fourth|fifth|sixth|seventh|eighth|ninth"
    r"|tenth|last)(?:[- ]\w+)?)"
)
NUMBERED = re.compile(
    rf"\s*(?:#{{1,6}} *)?(?:(?:chapter|book|part|volume|vol\.|canto|act|scene|section|letter|stave)"
    rf" +{_NUMBER_WORD}\b.{{0,80}}|[IVXLC]{{1,7}}\.? *(?:[-—:.] *\S.{{0,80}})?|\d{{1,3}}\.)\s*",
    re.I | re.S,
)
"""A heading with a number, by itself or with a title."""
_FRONT_TITLE = re.compile(
    r"\W*(?:(?:(?:the )?(?:author|translator|editor|publisher)'?s'? |general )?(?:preface|foreword"
    r"|introduction|introductory(?: note)?|prefatory note|advertisement|acknowledge?ments?"
    r"|dedication)(?: (?:to|by|of) .{1,60})?)\W*",
    re.I,
)
_BACK_TITLE = re.compile(
    r"\W*(?:appendix(?: \w+)?|index|glossary|bibliography|(?:end ?|foot)?notes|errata|colophon"
    r"|afterword|about the author|by the same author|also by .{1,60})\W*",
    re.I,
)
_CONTENTS_TITLE = re.compile(
    r"\W*(?:(?:table of )?contents|(?:list of )?(?:illustrations|plates|maps))\W*", re.I
)
TITLES = ((_CONTENTS_TITLE, CONTENTS), (_FRONT_TITLE, FRONT), (_BACK_TITLE, BACK))
# Searched for, and begun with a fixed number of dots: ".*\.{3,}" tries every pair of places.
_DOTTED = re.compile(r"(?:\.{3}|(?:\. ){3})\s*(?:\d{1,4}|[ivxlc]+)\s*\Z", re.I)
_SPACED = re.compile(r"\s\s(?:\d{1,4}|[ivxlc]+)\s*\Z", re.I)

_PRINTER = re.compile(
    r"all rights reserved|©|\(c\) ?\d{4}|\bcopyright (?:\d{4}|by)|\bisbn\b|library of congress"
    r"|project gutenberg|https?://|www\.|distributed proofread",
    re.I,
)
_PRINTER_SHORT = re.compile(
    r"copyright|published (?:by|in)|publishers\b|printed (?:in|by|and bound)|public domain"
    r"|first (?:published|printing|edition)|(?:reprinted|produced) by|\be-?(?:book|text)\b",
    re.I,
)
LOOSE_NOTE = re.compile(
    r"\W*(?:transcriber|editor|translator|publisher)'?s?'? notes?\b|\W*note by the ", re.I
)
FOOTNOTE_LINE = re.compile(
    r"\s*(?:\[(?:\d{1,3}|[A-Za-z*†‡§])\]|[*†‡§]{1,3}|[¹²³⁰⁴-⁹]+)\s*\S"
    r"|\s*\d{1,3}\.? (?:See|Cf\.|Ibid|Op\.|Vide|Compare|Loc\.)\b"
)
INLINE_MARKERS = re.compile(
    r" ?\[\d{1,3}\]|(?<=[\w.,;:!?'\")])\[[A-Za-z*†‡§]\]"
    r"|(?<=[\w.,;:!?'\")])(?:[*†‡§]{1,3}(?!\w)|[¹²³⁰⁴-⁹]+)"
)
ATTRIBUTION = re.compile(r"\s*—\s*[A-Z(\"'].{2,90}", re.S)
EMPHASIS = re.compile(r"(?<!\w)_(?=\w)([^_]{1,400}?)(?<=\S)_(?!\w)")
_COLUMNS = re.compile(r"\S {3,}\S")


def note_reason(note: str) -> str:
    """What a bracketed note is."""
    if _PAGE_NOTE.match(note):
        return PAGE
    return FOOTNOTE if _FOOTNOTE_NOTE.match(note) else NOTE


def is_printers(text: str) -> bool:
    """Whether a paragraph speaks of its own printing; in a long one only plain signs count."""
    words = len(text.split())
    if words < 120 and _PRINTER.search(text):
        return True
    return words < 25 and bool(_PRINTER_SHORT.search(text))


def is_heading(text: str) -> bool:
    """Whether a block, its lines joined, reads like a title."""
    if len(text) > 160:
        return False
    if NUMBERED.fullmatch(text) or text.startswith("#"):
        return True
    if re.search(r"[!?,;.'\"]$", text) and not text.isupper():
        return False
    words: list[str] = re.findall(r"[^\W\d_]+", text)
    if not words or len(words) > 12:
        return False
    titled = all(word[0].isupper() or len(word) <= 3 for word in words)
    return text.isupper() or (words[0][0].isupper() and titled)


def is_contents(lines: Sequence[str]) -> bool:
    """Entries with a page number each, after dots or, in a longer list, after a gap."""
    dotted = sum(bool(_DOTTED.search(line)) for line in lines)
    spaced = sum(bool(_SPACED.search(line)) for line in lines) if len(lines) > 2 else 0
    return max(dotted, spaced) > len(lines) / 2


def is_verse(lines: Sequence[str], width: int) -> bool:
    """Several lines that stop well before the margin (`width`) and begin with capitals; columns."""
    if len(lines) < 3:
        return False
    lines = [line.strip() for line in lines]
    if sum("|" in line or bool(_COLUMNS.search(line)) for line in lines) > len(lines) / 2:
        return True
    short = sum(len(line) < 0.75 * width for line in lines) > 0.8 * len(lines)
    starts = [line.lstrip("'\"(—-* ")[:1] for line in lines]
    return short and sum(not start.islower() for start in starts) > 0.7 * len(lines)
