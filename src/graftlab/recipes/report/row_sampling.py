"""Rows of a JSONL file with their place, and drawing lots among them."""

from __future__ import annotations

import hashlib
import heapq
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Line:
    """One row of a file."""

    row: dict[str, Any]
    place: str
    """`train.jsonl:12`, 1-based."""
    lot: int
    """64 bits of the row and the seed: the same rows draw the same lots everywhere."""


def lines(path: Path, *, seed: int) -> Iterator[Line]:
    """The rows of a file that `prepare` wrote."""
    key = str(seed).encode()[:64]
    with path.open("rb") as file:
        for number, data in enumerate(file, 1):
            lot = hashlib.blake2b(data, digest_size=8, key=key).digest()
            yield Line(json.loads(data), f"{path.name}:{number}", int.from_bytes(lot, "little"))


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
