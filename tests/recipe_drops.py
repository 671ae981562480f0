"""A `drop` that keeps what it is told, and text records to send through steps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from graftlab.recipes.record import Record, Step, is_piece

MESSY = Path(__file__).parent / "recipes" / "messy.txt"


@dataclass
class Drops:
    """Called as a `Drop`; `rows` holds (record, reason, detail)."""

    rows: list[tuple[Record, str, str]] = field(default_factory=list)

    def __call__(self, record: Record, reason: str, detail: str = "") -> None:
        assert reason
        self.rows.append((record, reason, detail))

    @property
    def reasons(self) -> Counter[str]:
        return Counter(reason for _, reason, _ in self.rows)

    def texts(self, reason: str) -> list[str]:
        return [str(record.body.get("text")) for record, why, _ in self.rows if why == reason]


def text_record(text: str, line: int = 1, **labels: str) -> Record:
    return Record("text", {"text": text}, f"book.txt:{line}", "core", labels)


def chat_record(*turns: str, line: int = 1) -> Record:
    roles = ("user", "assistant") * len(turns)
    messages = [{"role": role, "content": text} for role, text in zip(roles, turns, strict=False)]
    return Record("chat", {"messages": messages}, f"chats.jsonl:{line}", "core")


def run_step(step: Any, records: Iterable[Record]) -> tuple[list[Record], Drops]:
    """What a step yields and drops; asserts that every record is accounted for."""
    drops, given = Drops(), list(records)
    assert len({record.origin for record in given}) == len(given), "told apart by origin"
    checked: Step = step
    out = list(checked.apply(iter(given), drops))
    whole = Counter(record.origin for record, _, _ in drops.rows if not is_piece(record))
    kept = {record.origin for record in out}
    for record in given:
        assert whole[record.origin] == (record.origin not in kept), record.origin
    assert kept | set(whole) == {record.origin for record in given}
    return out, drops
