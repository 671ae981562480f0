"""Rows that are left out: where they stood, why, and the file that lists them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graftlab.types import Conversation, place_of


@dataclass(frozen=True, slots=True)
class Reject:
    """A row that is left out, and why."""

    source: str
    line: int
    reason: str
    row: Any
    index: int = 0
    """Its place in a JSON array, 1-based; 0 in a file of lines."""
    ends: bool = False
    """Nothing of the file could be read behind it."""

    @property
    def where(self) -> str:
        return place_of(self.source, self.line, self.index)


def refused_row(conversation: Conversation, reason: str) -> Reject:
    """A conversation that was read and cannot be trained."""
    return Reject(
        conversation.source, conversation.line, reason, row_of(conversation), conversation.index
    )


def row_of(conversation: Conversation) -> dict[str, Any]:
    """A conversation as a row of a data file, which reads as it again."""
    messages = [turn.as_row() for turn in conversation.messages]
    row: dict[str, Any] = {"messages": messages}
    if conversation.rejected:
        row = {"chosen": messages, "rejected": [turn.as_row() for turn in conversation.rejected]}
    if conversation.tools:
        row["tools"] = list(conversation.tools)
    return row if conversation.desirable is None else row | {"label": conversation.desirable}


def write_rejects(file: Path, rows: Iterable[Reject], *, append: bool = False) -> None:
    """Rows that are left out as JSONL: {source, line, index?, reason, row}."""
    file.parent.mkdir(parents=True, exist_ok=True)
    mode = "a" if append else "w"
    with file.open(mode, encoding="utf-8", errors="backslashreplace") as stream:
        for row in rows:
            place = {"line": row.line} | ({"index": row.index} if row.index else {})
            entry = {"source": row.source, **place, "reason": row.reason, "row": row.row}
            stream.write(json.dumps(entry, ensure_ascii=False) + "\n")
