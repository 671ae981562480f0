"""Rows of a JSONL file with their place, what they say by part, and drawing lots among them."""

from __future__ import annotations

import hashlib
import heapq
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from graftlab.recipes.words import texts_in

T = TypeVar("T")

PARTS = ("system", "user", "assistant", "tool", "text", "chosen", "rejected", "other")
_NAMES = {name: name for name in PARTS} | {
    "human": "user",
    "prompt": "user",
    "instruction": "user",
    "input": "user",
    "output": "assistant",
    "gpt": "assistant",
    "completion": "assistant",
    "observation": "tool",
}
_TURNS = frozenset({"messages", "conversations"})
_NOT_SAID = frozenset({"source", "labels", "label", "kto_tag", "tools"})


@dataclass(frozen=True, slots=True)
class Line:
    """One row of a file."""

    row: dict[str, Any]
    place: str
    """`train.jsonl:12`, 1-based."""
    offset: int
    """Bytes before it in its file."""
    lot: int
    """64 bits of the row and the seed: the same rows draw the same lots everywhere."""


def lines(path: Path, *, seed: int) -> Iterator[Line]:
    """The rows of a file that `prepare` wrote."""
    offset, key = 0, str(seed).encode()[:64]
    with path.open("rb") as file:
        for number, data in enumerate(file, 1):
            lot = hashlib.blake2b(data, digest_size=8, key=key).digest()
            yield Line(
                json.loads(data), f"{path.name}:{number}", offset, int.from_bytes(lot, "little")
            )
            offset += len(data)


@dataclass(frozen=True, slots=True)
class Spot:
    """Where a line is, without what it says."""

    offset: int
    place: str
    lot: int

    @classmethod
    def of(cls, line: Line) -> Spot:
        return cls(line.offset, line.place, line.lot)


def read_at(path: Path, spots: Iterable[Spot]) -> Iterator[Line]:
    """The lines that are there, read again."""
    with path.open("rb") as file:
        for spot in spots:
            file.seek(spot.offset)
            yield Line(json.loads(file.readline()), spot.place, spot.offset, spot.lot)


def turns_in(body: Any) -> Iterator[tuple[str, str]]:
    """(part, text) of everything that a row's body says, in order; parts are those of PARTS."""
    if not isinstance(body, dict):
        yield "other", "\n".join(texts_in(body))
        return
    for key, value in body.items():
        if key in _TURNS and isinstance(value, list):
            for turn in value:
                role = turn.get("role", turn.get("from")) if isinstance(turn, dict) else None
                yield _NAMES.get(str(role), "other"), "\n".join(texts_in(turn))
        elif key not in _NOT_SAID and (text := "\n".join(texts_in(value))):
            yield _NAMES.get(key, "other"), text


@dataclass(slots=True)
class Lowest(Generic[T]):
    """The `size` things with the lowest lots: a fair draw. Of equal lots the first one counts."""

    size: int
    seen: int = 0
    """Things offered so far, those of equal lots included."""
    _heap: list[tuple[int, int]] = field(default_factory=list)
    _found: dict[int, T] = field(default_factory=dict)

    def offer(self, lot: int, make: Callable[..., T], *given: Any) -> None:
        """Take part in the draw with `make(*given)`, which is made only if it is drawn so far."""
        self.seen += 1
        if lot in self._found or (len(self._heap) >= self.size and -self._heap[0][0] <= lot):
            return
        self._found[lot] = make(*given)
        heapq.heappush(self._heap, (-lot, self.seen))
        if len(self._heap) > self.size:
            del self._found[-heapq.heappop(self._heap)[0]]

    def drawn(self) -> list[T]:
        """In the order in which they were offered."""
        return [self._found[-lot] for lot, _ in sorted(self._heap, key=lambda item: item[1])]
