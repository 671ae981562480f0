"""What kind of thing a noun names, by the lists in `nouns.txt`."""

from __future__ import annotations

from functools import cache

from graftlab.recipes.tagging import Word
from graftlab.recipes.wordlists import word_sections

PERSON, PLACE, TIME, THING = "PERSON", "PLACE", "TIME", "THING"


def kind_of_noun(word: Word) -> str:
    """The kind of a common noun: as listed, else by its ending, else THING."""
    listed = kinds()
    stem = word.lemma if word.lemma in listed else word.low
    for name in (stem, stem.rsplit("-", 1)[-1]):
        if name in listed:
            return listed[name]
    for ending, kind in _endings():
        if stem.endswith(ending) and len(stem) > len(ending) + 2:
            return kind
    return THING


@cache
def kinds() -> dict[str, str]:
    """Listed noun -> its kind."""
    return {
        noun: kind
        for kind, nouns in word_sections("nouns").items()
        if not kind.startswith("ENDING")
        for noun in nouns
    }


@cache
def _endings() -> list[tuple[str, str]]:
    return [
        (ending, kind.removeprefix("ENDING "))
        for kind, endings in word_sections("nouns").items()
        if kind.startswith("ENDING")
        for ending in endings
    ]
