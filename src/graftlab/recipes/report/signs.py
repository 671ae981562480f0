"""Signs of damage in a text: characters and shapes that seldom belong there."""

from __future__ import annotations

import re
from collections.abc import Callable
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


def _search(pattern: str) -> Callable[[str], Span | None]:
    """A finder."""
    expression = re.compile(pattern)

    def find(text: str) -> Span | None:
        found = expression.search(text)
        return found.span() if found else None

    return find


def _long_word(text: str) -> Span | None:
    for found in _LONG.finditer(text):
        if "://" not in found[0] and "www." not in found[0]:
            return found.span()
    return None


def _mostly_symbols(text: str) -> Span | None:
    """The start of a text of which fewer than half of the visible characters are letters."""
    visible, others = len("".join(text.split())), len(_NO_LETTERS.sub("", text))
    if visible < _FEWEST or 2 * others <= visible:
        return None
    return 0, min(len(text), LONG_WORD)


# Scripts written without spaces have long "words" of their own.
_LONG = re.compile(
    r"[^\s\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3000-\u30ff\u3400-\u9fff\uac00-\ud7af]"
    rf"{{{LONG_WORD},}}"
)
_NO_LETTERS = re.compile(r"[^\W\d_]+|\s+")
_CP1252 = "\u0080-\u00bf€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ"

SIGNS: tuple[Sign, ...] = (
    Sign(
        "replacement characters",
        "U+FFFD: something could not be decoded, and is lost",
        _search("\ufffd"),
    ),
    Sign(
        "mojibake",
        "UTF-8 that was read as Latin-1 or Windows-1252, such as Ã© for é",
        _search(f"[ÃÂ][{_CP1252}]|â€[{_CP1252}]|ðŸ|ï»¿|Ð[{_CP1252}]Ñ"),
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
    ),
    Sign(
        "zero-width characters",
        "invisible: joiners, direction marks, soft hyphens, byte order marks "
        "(joiners between emoji or in Arabic and Indic scripts are right)",
        _search("[\u00ad\u061c\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]"),
    ),
    Sign(
        "very long words",
        f"{LONG_WORD} characters or more without a space: keys, encoded data, lines run together",
        _long_word,
    ),
    Sign(
        "mostly digits and symbols",
        "fewer than half of the visible characters are letters",
        _mostly_symbols,
    ),
    Sign(
        "HTML left over",
        "tags or entities such as <br> and &nbsp;",
        _search(
            r"</?(?:a|b|br|div|em|font|h[1-6]|i|img|li|p|script|span|strong|style|t[dr]|table|ul)"
            r"(?:\s[^<>]*)?/?>|&(?:[lg]t|amp|nbsp|quot|#\d+);"
        ),
    ),
    Sign(
        "web addresses",
        "a model learns to make them up",
        _search(r"https?://\S+|\bwww\.\S+"),
    ),
    Sign(
        "e-mail addresses",
        "possibly private data",
        _search(r"(?<![\w.+-])[\w.+-]++@[\w-]+\.[\w.-]*\w"),
    ),
)


def signs_in(text: str) -> list[tuple[Sign, Span]]:
    """Every sign that the text shows, with the first place of each."""
    return [(sign, span) for sign in SIGNS if (span := sign.find(text))]
