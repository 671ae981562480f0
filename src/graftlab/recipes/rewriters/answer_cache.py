"""Answers on disk, so that none is paid for twice, and what they cost.

    CACHE/rewriter-<endpoint and model>.jsonl     one answer a line, appended as it comes:
    {"key": ..., "text": ..., "finish": "stop", "tokens": [prompt, answer], "xxh3": ...}

`xxh3` is the checksum of the line without it; an answer that fails it is asked for again. `key` is
a hash of everything that was sent but the API key, which is written nowhere.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path

from graftlab.caches import RowCache


@dataclass(frozen=True, slots=True)
class CachedAnswer:
    """What an endpoint said, as it is kept."""

    text: str
    finish: str
    """Why it ended: stop, or length where it was cut off."""
    tokens: tuple[int, int]
    """Of the prompt and of the answer, as billed."""


class AnswerCache:
    """Answers by key; safe for threads, and for a process that is killed while it writes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._rows = RowCache(path)
        self.damaged = self._rows.damaged

    def get(self, key: str) -> CachedAnswer | None:
        if (row := self._rows.get(key)) is None:
            return None
        asked, said = row["tokens"]
        return CachedAnswer(row["text"], row["finish"], (asked, said))

    def put(self, key: str, answer: CachedAnswer) -> None:
        """Keep an answer; it is on disk when this returns."""
        self._rows.put(
            key, {"text": answer.text, "finish": answer.finish, "tokens": list(answer.tokens)}
        )


class SpendingLimit:
    """Counts what is spent, and lets no request go that could pass the limit.

    Prices are per million tokens. A request's worst case is set aside before it is sent and
    replaced by what it cost when the answer is there.
    """

    def __init__(self, *, prompt_price: float, answer_price: float, limit: float | None) -> None:
        self.prompt_price, self.answer_price, self.limit = prompt_price, answer_price, limit
        self.spent = 0.0
        self._aside = 0.0
        self._lock = threading.Lock()

    def cost(self, tokens: tuple[int, int]) -> float:
        return (tokens[0] * self.prompt_price + tokens[1] * self.answer_price) / 1e6

    def reserve(self, worst: float) -> bool:
        """Set `worst` aside; False where that would pass the limit."""
        with self._lock:
            if self.limit is not None and self.spent + self._aside + worst > self.limit:
                return False
            self._aside += worst
            return True

    def commit(self, reserved: float, cost: float) -> None:
        """Replace what was set aside by what was paid."""
        with self._lock:
            self._aside -= reserved
            self.spent += cost
