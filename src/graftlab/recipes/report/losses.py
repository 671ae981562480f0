"""What was dropped: by step and reason with examples, and which rows were nearly the same."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from graftlab.recipes.pieces import PIECE
from graftlab.recipes.record import Record
from graftlab.recipes.report.row_sampling import Lowest, lines, turns_in
from graftlab.recipes.words import jaccard, shingles, texts_in

NEAR = "near duplicate"
"""The reason of `dedupe` for what is not quite the same."""
UNREAD = "unread"
"""The kind of what could not become a record."""
EXAMPLES = 5
TWINS = 8
CLIP = 1200
"""Characters of a turn that are held."""
TURNS = 12
"""Turns of an example that are held."""
_PROBES = 6
"""Words by which a row that may be a twin is told from the many that are not."""
_TWIN_WORDS = 3
_LIKE = re.compile(r"(\d\.\d\d) like (.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Example:
    """One dropped row, shortened."""

    origin: str
    source: str
    detail: str
    turns: list[tuple[str, str]]
    """(part, text), texts cut to CLIP characters."""


@dataclass(slots=True)
class LossGroup:
    """The rows that one step dropped for one reason."""

    step: str
    reason: str
    parts: bool
    """Whether these are parts of rows that may have gone on."""
    sources: Counter[str] = field(default_factory=Counter)
    examples: Lowest[Example] = field(default_factory=lambda: Lowest(EXAMPLES))

    @property
    def rows(self) -> int:
        return self.sources.total()


@dataclass(slots=True)
class Twin:
    """A row that was dropped as a near duplicate, and the kept one it is like."""

    dropped: Example
    similarity: str
    """As `dedupe` told it, such as 0.83."""
    origin: str
    """Of the kept row."""
    kept: list[tuple[str, str]] | None = None
    """The kept row's turns, once it is found."""
    place: str = ""
    """Where it was found."""
    length: int = 0
    probes: tuple[str, ...] = ()
    grams: frozenset[str] = frozenset()

    def meet(self, body: dict[str, Any], place: str, *, length: int, text: str) -> None:
        """Take the row as the kept one if it is exactly as alike as was told."""
        # Cheap looks first: almost every row of a large set is no twin of this one.
        if self.kept is not None or not 0.5 * self.length <= length <= 2 * self.length:
            return
        if 2 * sum(probe in text for probe in self.probes) < len(self.probes):
            return
        grams = frozenset(shingles(Record("", body, ""), _TWIN_WORDS))
        if f"{jaccard(grams, self.grams):.2f}" == self.similarity:
            self.kept, self.place = clipped(body), place


@dataclass(slots=True)
class Losses:
    """The rejected rows of one result."""

    groups: list[LossGroup]
    """In the order in which they first occur."""
    twins: list[Twin]
    near: int
    """Near-duplicates in all."""

    @classmethod
    def of(cls, path: Path, *, seed: int) -> Losses:
        """Read `rejects.jsonl` once."""
        groups: dict[tuple[str, str, bool], LossGroup] = {}
        twins: Lowest[Twin] = Lowest(TWINS)
        for line in lines(path, seed=seed):
            row = line.row
            key = row["step"], row["reason"], PIECE in row.get("labels", {})
            group = groups.setdefault(key, LossGroup(*key))
            group.sources[row["source"]] += 1
            group.examples.offer(line.lot, _example, row)
            if row["reason"] == NEAR and (like := _LIKE.fullmatch(row["detail"])):
                twins.offer(line.lot, _twin, row, like)
        return cls(list(groups.values()), twins.drawn(), twins.seen)


def clipped(body: Any) -> list[tuple[str, str]]:
    """The first turns of a row, each cut; what is left out is counted."""
    found = list(turns_in(body))
    shown = [(part, _cut(text)) for part, text in found[:TURNS]]
    more = len(found) - TURNS
    return [*shown, ("other", f"… ({more:,} more turns)")] if more > 0 else shown


def _cut(text: str) -> str:
    more = len(text) - CLIP
    return f"{text[:CLIP]} … ({more:,} more characters)" if more > 0 else text


def _example(row: dict[str, Any]) -> Example:
    record = row["record"]
    if row["kind"] == UNREAD:
        # What is wrong with such a row is its shape, more often than what it says.
        turns = [("as read", _cut(json.dumps(record, ensure_ascii=False)))]
    else:
        turns = clipped(record)
    return Example(row["origin"], row["source"], row["detail"], turns)


def _twin(row: dict[str, Any], like: re.Match[str]) -> Twin:
    text = "\n".join(texts_in(row["record"]))
    words = sorted(set(text.split()), key=lambda word: (-len(word), word))
    return Twin(
        dropped=_example(row),
        similarity=like[1],
        origin=like[2],
        length=len(text),
        probes=tuple(words[:_PROBES]),
        grams=frozenset(shingles(Record("", row["record"], ""), _TWIN_WORDS)),
    )
