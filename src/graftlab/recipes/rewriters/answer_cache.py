"""Answers on disk, so that none is paid for twice, and what they cost.

    CACHE/rewriter-<endpoint and model>.jsonl     one answer a line, appended as it comes:
    {"key": ..., "text": ..., "finish": "stop", "tokens": [prompt, answer], "xxh3": ...}

`xxh3` is the checksum of the line without it; an answer that fails it is asked for again. `key` is
a hash of everything that was sent but the key to the door, which is written nowhere.
"""

from __future__ import annotations

import json
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graftlab.caches import tell_damage
from graftlab.files.checksums import checksum_of
from graftlab.files.reading import load_json


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
        self._lock = threading.Lock()
        self._answers: dict[str, CachedAnswer] = {}
        self.damaged = 0
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            self._read()

    def _read(self) -> None:
        data = self.path.read_bytes()
        *lines, torn = data.split(b"\n")  # U+2028 ends no line here
        for line in [*lines, torn]:
            try:
                row = load_json(line)
                if row.pop("xxh3") != checksum_of(_line(row)):
                    raise ValueError("damaged")
                asked, said = row["tokens"]
                answer = CachedAnswer(str(row["text"]), str(row["finish"]), (int(asked), int(said)))
                self._answers[str(row["key"])] = answer
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                self.damaged += bool(line) and line is not torn  # a process died writing that one
        if self.damaged:
            tell_damage(
                f"{self.path}: lines that are not as they were written: {self.damaged}. Their "
                "answers are asked for again."
            )
        if data and not data.endswith(b"\n"):
            with self.path.open("ab") as file:
                file.write(b"\n")

    def get(self, key: str) -> CachedAnswer | None:
        return self._answers.get(key)

    def put(self, key: str, answer: CachedAnswer) -> None:
        """Keep an answer; it is on disk when this returns."""
        row = {"key": key, "text": answer.text, "finish": answer.finish, "tokens": answer.tokens}
        line = _line(row | {"xxh3": checksum_of(_line(row))}) + b"\n"
        with self._lock:
            with self.path.open("ab") as file:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
            self._answers[key] = answer


def _line(row: dict[str, Any]) -> bytes:
    return json.dumps(row, ensure_ascii=False).encode("utf-8", "surrogatepass")


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
