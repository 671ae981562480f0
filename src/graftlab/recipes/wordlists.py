"""Word lists beside the code: `[section]` lines, then words; lines with # are comments."""

from __future__ import annotations

from functools import cache
from pathlib import Path


@cache
def word_sections(name: str) -> dict[str, tuple[str, ...]]:
    """The sections of `name`.txt, in order, each with its words."""
    sections: dict[str, list[str]] = {}
    words: list[str] = []
    path = Path(__file__).parent / f"{name}.txt"
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            words = sections.setdefault(line.strip("[]"), [])
        elif not line.startswith("#"):
            words.extend(line.split())
    return {section: tuple(found) for section, found in sections.items()}


def words_of_kind(section: str) -> frozenset[str]:
    """The words of one section of `words.txt`."""
    return frozenset(word_sections("words")[section])
