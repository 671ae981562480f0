"""Signs of damage in a text: characters and shapes that seldom belong there.

Every sign is cheap to rule out, so that all rows can be looked at and not a sample only.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass

Span = tuple[int, int]
LONG_WORD = 60
"""Characters without a space; addresses of web pages do not count."""
_FEWEST = 20
"""Characters from which on a row can be mostly symbols."""


@dataclass(frozen=True, slots=True)
class Sign:
    """One kind of damage, and where a text shows it first."""

    name: str
    meaning: str
    find: Callable[[str], Span | None]
    ascii: bool = True
    """Whether a text of ASCII alone may show it."""


def _search(pattern: str, *, needs: Sequence[str] = ()) -> Callable[[str], Span | None]:
    """A finder; a text that holds none of `needs` is not searched."""
    expression = re.compile(pattern)

    def find(text: str) -> Span | None:
        if needs and not any(need in text for need in needs):
            return None
        found = expression.search(text)
        return found.span() if found else None

    return find


def _long_word(text: str) -> Span | None:
    if len(max(text.split(), key=len, default="")) < LONG_WORD:
        return None
    for found in _LONG.finditer(text):
        if "://" not in found[0] and "www." not in found[0]:
            return found.span()
    return None


def mostly_symbols(text: str) -> Span | None:
    """The whole text where fewer than half of its visible characters are letters."""
    if text.isascii():
        # Many times as fast as the expression, and most texts are of this kind.
        data = text.encode().translate(None, _SPACES)
        visible, others = len(data), len(data.translate(None, _LETTERS))
    else:
        visible, others = len("".join(text.split())), len(_NO_LETTERS.sub("", text))
    if visible < _FEWEST or 2 * others <= visible:
        return None
    return 0, min(len(text), LONG_WORD)


# Scripts written without spaces have long "words" of their own.
_LONG = re.compile(
    r"[^\s\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3000-\u30ff\u3400-\u9fff\uac00-\ud7af]"
    rf"{{{LONG_WORD},}}"
)
_SPACES = b" \t\n\v\f\r\x1c\x1d\x1e\x1f"
_LETTERS = string.ascii_letters.encode()
_NO_LETTERS = re.compile(r"[^\W\d_]+|\s+")
_CP1252 = "\u0080-\u00bf€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ"

SIGNS: tuple[Sign, ...] = (
    Sign(
        "replacement characters",
        "U+FFFD: something could not be decoded, and is lost",
        _search("\ufffd", needs=["\ufffd"]),
        ascii=False,
    ),
    Sign(
        "mojibake",
        "UTF-8 that was read as Latin-1 or Windows-1252, such as Ã© for é",
        _search(f"[ÃÂ][{_CP1252}]|â€[{_CP1252}]|ðŸ|ï»¿|Ð[{_CP1252}]Ñ", needs="ÃÂâðïÐ"),
        ascii=False,
    ),
    Sign(
        "control characters",
        "invisible, but no tab or line break",
        _search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]"),
    ),
    Sign(
        "lone surrogates",
        "halves of characters: broken \\u escapes; most tokenizers refuse them",
        _search("[\ud800-\udfff]"),
        ascii=False,
    ),
    Sign(
        "zero-width characters",
        "invisible: joiners, direction marks, soft hyphens, byte order marks "
        "(joiners between emoji or in Arabic and Indic scripts are right)",
        _search("[\u00ad\u061c\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]"),
        ascii=False,
    ),
    Sign(
        "very long words",
        f"{LONG_WORD} characters or more without a space: keys, encoded data, lines run together",
        _long_word,
    ),
    Sign(
        "mostly digits and symbols",
        "fewer than half of the visible characters are letters",
        mostly_symbols,
    ),
    Sign(
        "HTML left over",
        "tags or entities such as <br> and &nbsp;",
        _search(
            r"</?(?:a|b|br|div|em|font|h[1-6]|i|img|li|p|script|span|strong|style|t[dr]|table|ul)"
            r"(?:\s[^<>]*)?/?>|&(?:[lg]t|amp|nbsp|quot|#\d+);",
            needs="<&",
        ),
    ),
    Sign(
        "web addresses",
        "a model learns to make them up",
        _search(r"https?://\S+|\bwww\.\S+", needs=["://", "www."]),
    ),
    Sign(
        "e-mail addresses",
        "possibly private data",
        _search(r"(?<![\w.+-])[\w.+-]++@[\w-]+\.[\w.-]*\w", needs="@"),
    ),
)


def signs_in(text: str) -> list[tuple[Sign, Span]]:
    """Every sign that the text shows, with the first place of each."""
    plain = text.isascii()
    found = []
    for sign in SIGNS:
        if (sign.ascii or not plain) and (span := sign.find(text)):
            found.append((sign, span))
    return found
