"""After words were taken out of a sentence: commas, articles and capitals put right again."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from graftlab.recipes.tagging import Word

BLANK = "\ue000"
"""Stands for the three dots of something left out, until the punctuation is right."""

_SILENT_H = ("hour", "honest", "honor", "honour", "heir")
_LIKE_YOU = re.compile(r"(?:uni(?!m|n|d)|us[eu]|eu|one\b|once\b|ewe|u\b)", re.I)
_DOTS = re.compile(r"\.{2,}")


def _without_brackets(match: re.Match[str]) -> str:
    """What stands between two words, without the brackets that hold none."""
    text = match.group()
    start, end = text.find("("), text.rfind(")")
    return text[:start] + text[end + 1 :] if 0 <= start < end else text


_REPAIRS: tuple[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]], ...] = (
    (re.compile(r"\s+"), " "),
    (re.compile(r"([(\[]) | ([)\]])"), r"\1\2"),
    (re.compile(r" ([,;:.!?])"), r"\1"),
    (re.compile(r"(?:[,;:] ?)+([,;:.!?])"), r"\1"),
    (re.compile(r"— ?(?:[,;:]|—)+ ?"), "—"),
    (re.compile(r"[,;:]? ?—(?=[.!?])"), ""),
    (re.compile(r" ?— ?"), "—"),
    (re.compile(r"\b(and|or|but),? (?:and|or|but)\b"), r"\1"),
    (re.compile(r", (\w{3,}),? and \1\b", re.I), r" and \1"),
    (re.compile(r"\b(\w{3,})(?:,? (?:and|or) \1)+\b", re.I), r"\1"),
    (re.compile(r"\b(the|its|their|my|your|our|his|an?), (?=\w)", re.I), r"\1 "),
    (re.compile(r"\bcan not\b"), "cannot"),
    (re.compile(r",? (?:and|or)(?=[.;:!?])"), ""),
    (re.compile(r"[^\w\[]+"), _without_brackets),
    (re.compile(r"^[\s,;:—.]+(?=[\w'\"(\[])"), ""),
    (re.compile(r"([.!?]) ?\.(?!\.)"), r"\1"),
    (re.compile(r"\s{2,}"), " "),
)


def articles(words: Sequence[Word]) -> list[Word]:
    """Every a and an as the word behind it wants."""
    fixed = list(words)
    for index, word in enumerate(fixed[:-1]):
        following = fixed[index + 1]
        if word.low in ("a", "an") and word.tag == "AT0" and following.before:
            text = "an" if _needs_an(following.text) else "a"
            fixed[index] = replace(word, text=text.capitalize() if word.text[0] == "A" else text)
    return fixed


def _needs_an(word: str) -> bool:
    letters = word.lstrip("'\"([").lower()
    if letters.startswith(_SILENT_H):
        return True
    return letters[:1] in tuple("aeiou") and not _LIKE_YOU.match(letters)


def tidied(text: str) -> str:
    """One sentence without doubled or leading punctuation, begun with a capital."""
    text = _DOTS.sub(BLANK, text)
    for pattern, repaired in _REPAIRS:
        text = pattern.sub(repaired, text)
    text = text.strip()
    first = re.search(r"[^\W_]", text)
    if first is None:
        return ""
    if BLANK not in text[: first.start()]:
        text = text[: first.start()] + text[first.start()].upper() + text[first.end() :]
    return text.replace(BLANK, "...")
