"""What was dropped: by step and reason, with examples."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from graftlab.recipes.record import PIECE
from graftlab.recipes.report.row_sampling import Lowest, lines
from graftlab.recipes.report.turns import Shown, clipped, cut

EXAMPLES = 5


@dataclass(slots=True)
class LossGroup:
    """The rows that one step dropped for one reason."""

    step: str
    reason: str
    parts: bool
    """Whether these are parts of rows that may have gone on."""
    sources: Counter[str] = field(default_factory=Counter)
    examples: Lowest[Shown] = field(default_factory=lambda: Lowest(EXAMPLES))

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
        group.examples.offer(line.lot, _shown, row)
    return list(groups.values())


def _shown(row: dict[str, Any]) -> Shown:
    record = row["record"]
    if row["kind"] == "unread":
        # What is wrong with such a row is its shape, more often than what it says.
        turns = [("as read", cut(json.dumps(record, ensure_ascii=False)))]
    else:
        turns = clipped(record)
    return Shown(row["origin"], (row["source"], row["detail"]), turns)
