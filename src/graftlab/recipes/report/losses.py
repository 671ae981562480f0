"""What was dropped: by step and reason, with examples."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from graftlab.recipes.pieces import PIECE
from graftlab.recipes.report.row_sampling import Lowest, lines, turns_in

EXAMPLES = 5
CLIP = 1200
"""Characters of a turn that are held."""
TURNS = 12
"""Turns of an example that are held."""


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


def read_losses(path: Path, *, seed: int) -> list[LossGroup]:
    """The groups of `rejects.jsonl`, in the order in which they first occur."""
    groups: dict[tuple[str, str, bool], LossGroup] = {}
    for line in lines(path, seed=seed):
        row = line.row
        key = row["step"], row["reason"], PIECE in row.get("labels", {})
        group = groups.setdefault(key, LossGroup(*key))
        group.sources[row["source"]] += 1
        group.examples.offer(line.lot, _example, row)
    return list(groups.values())


def clipped(body: dict[str, Any]) -> list[tuple[str, str]]:
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
    if row["kind"] == "unread":
        # What is wrong with such a row is its shape, more often than what it says.
        turns = [("as read", _cut(json.dumps(record, ensure_ascii=False)))]
    else:
        turns = clipped(record)
    return Example(row["origin"], row["source"], row["detail"], turns)
