"""The nouns of `prepare`: records on their way through named steps, and why some left it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Record:
    """One row of a data set that is being made; a step that changes it returns another."""

    kind: str
    """text or chat; unread for what could not become a record."""
    body: dict[str, Any]
    """JSON: {"text": str}, or {"messages": [{"role", "content"}, ...], "tools"?: [...]}."""
    origin: str
    """`file:line`, 1-based; a record derived from another has its parent's origin."""
    source: str = ""
    """The recipe's name for the source it came through, such as core or markdown."""
    labels: dict[str, str] = field(default_factory=dict)
    """What a step says about it, such as {"variation": "neutral", "chunk": "17"}."""


class Drop(Protocol):
    """What a step calls for a record that it does not pass on."""

    def __call__(self, record: Record, reason: str, detail: str = "") -> None:
        """Note why; `reason` is a short stable phrase, `detail` this row's particulars."""
        ...


class Step(Protocol):
    """A dataclass of parameters that takes records to records.

    Each incoming record is either dropped, once and with a reason, or the origin of at least one
    outgoing record.
    """

    def apply(self, records: Iterator[Record], drop: Drop) -> Iterator[Record]:
        """A generator: streams wherever it can."""
        ...


PIECE = "piece"
"""The label of a dropped part of a record; its value is the line within the text, or its name."""


def is_piece(record: Record) -> bool:
    """Whether a dropped record is only a part of one that may have gone on."""
    return PIECE in record.labels
