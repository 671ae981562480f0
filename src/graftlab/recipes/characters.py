"""One spelling for every character: what scanners, editors and type-setters did is undone.

    composed       e + accent  ->  é (NFC)             fi, fl, ff ligatures, long s  ->  letters
    spaces         no-break, thin, tab ...  ->  space   zero-width and control characters  ->  gone
    hyphens        soft hyphen  ->  gone, or a hyphen where it ends a line
    quotes         curly, low and doubled  ->  ' and "  an ellipsis  ->  three dots
    dashes         -- and --- and the bar  ->  —        without spaces around it

Quotes become straight because the way back, to curly ones, cannot be told from apostrophes; a dash
becomes typographic because two hyphens are a typewriter's dash and nothing else.
"""

from __future__ import annotations

import re
import unicodedata

_LETTERS = {"ﬀ": "ff", "ﬁ": "fi", "ﬂ": "fl", "ﬃ": "ffi", "ﬄ": "ffl", "ﬅ": "st", "ﬆ": "st", "ſ": "s"}
_QUOTES = dict.fromkeys("‘’‚‛`´", "'") | dict.fromkeys("“”„‟«»", '"')
_OTHERS = {"…": "...", "‐": "-", "‑": "-", "―": "—", "\u2028": "\n", "\u2029": "\n", "\x85": "\n"}
_SPACES = dict.fromkeys(
    "\t\u00a0\u1680\u202f\u205f\u3000" + "".join(map(chr, range(8192, 8203))), " "
)
_TABLE = str.maketrans(_LETTERS | _QUOTES | _OTHERS | _SPACES)

_SOFT_AT_END = re.compile("\u00ad[ \t]*$", re.MULTILINE)
_INVISIBLE = re.compile(
    "[\u00ad\u200b\u200e\u200f\u2060\ufeff\x00-\x08\x0b\x0e-\x1f\x7f-\x84\x86-\x9f]"
)
_DOUBLED_QUOTES = re.compile(r"``|''")
_DASH = re.compile(r"(?<=\S) *(?<!-)(?:---?|—)(?!-) *(?=\S)")
_EDGE_DASH = re.compile(r"(?<!-)---?(?!-)")
_LONG_DASH = re.compile(r"(?<=\w)-{4,}")


def plain_characters(text: str) -> str:
    """`text` in the one spelling; a line stays a line, so that line numbers keep their meaning.

    Form feeds stay as well: they are where a page ended.
    """
    text = unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\r", "\n"))
    text = _INVISIBLE.sub("", _SOFT_AT_END.sub("-", text)).translate(_TABLE)
    text = _DOUBLED_QUOTES.sub('"', text)
    return "\n".join(_dashes(line.rstrip(" ")) for line in text.split("\n"))


def _dashes(line: str) -> str:
    """Typewriter dashes of one line made typographic; a line of nothing else is an ornament."""
    if not any(letter.isalnum() for letter in line):
        return line
    return _LONG_DASH.sub("—", _EDGE_DASH.sub("—", _DASH.sub("—", line)))
