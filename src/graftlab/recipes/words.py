"""What a record says, as words and n-grams: the measure of being alike.

Roles and tool descriptions are left out: many rows share them, and they say nothing about twins.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from typing import Any

from graftlab.recipes.record import Record

_SILENT = frozenset({"role", "from", "tools", "type", "id"})
# Scripts without spaces count character by character.
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|\w+")


def texts_in(value: Any) -> Iterator[str]:
    """Every text inside a JSON value, in order, but for roles and tool descriptions."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            if key not in _SILENT:
                yield from texts_in(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from texts_in(inner)


def words_of(text: str) -> list[str]:
    """The words of a text, lower-cased, without punctuation."""
    return _WORD.findall(text.lower())


def ngrams(words: Sequence[str], size: int) -> list[str]:
    """Runs of `size` words joined by spaces; a text of fewer words is one run."""
    if len(words) <= size:
        return [" ".join(words)]
    return [" ".join(words[start : start + size]) for start in range(len(words) - size + 1)]


def shingles(record: Record, size: int) -> list[str]:
    """The record's n-grams, repeats included; a record without words counts as it is written."""
    text = "\n".join(texts_in(record.body))
    words = words_of(text)
    return ngrams(words, size) if words else [text]


def jaccard(first: frozenset[str], second: frozenset[str]) -> float:
    """Shared over all, in 0..1."""
    return len(first & second) / (len(first | second) or 1)


def family(record: Record) -> str:
    """What records derived from the same row (or chunk of a text) have in common.

    They are variants on purpose: not each other's duplicates, but never on different sides.
    """
    return f"{record.origin}\t{record.labels.get('chunk', '')}"


def hash64(text: str) -> int:
    """64 bits of a text, the same on every machine; lone surrogates count as they are."""
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8)
    return int.from_bytes(digest.digest(), "little")
