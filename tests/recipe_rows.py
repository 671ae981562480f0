"""Small records and rows that the tests of `prepare` share."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from graftlab.recipes.record import Record


def turns(question: str, answer: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def chat(question: str, answer: str, *, origin: str = "a:1", source: str = "core") -> Record:
    return Record("chat", {"messages": turns(question, answer)}, origin, source)


def sentence(number: int, *, words: int = 30) -> str:
    """A text of its own for every number."""
    return " ".join(f"w{word}" for word in random.Random(number).choices(range(5000), k=words))


def many(count: int, *, source: str = "core") -> list[Record]:
    """Records that have nothing in common."""
    return [
        chat(sentence(n), sentence(n + 10_000), origin=f"{source}:{n + 1}", source=source)
        for n in range(count)
    ]


def write_lines(path: Path, rows: Iterable[Any]) -> str:
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    return str(path)


def read_lines(path: Path) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


class Drops(list[tuple[Record, str, str]]):
    """A `Drop` that remembers."""

    def __call__(self, record: Record, reason: str, detail: str = "") -> None:
        self.append((record, reason, detail))

    @property
    def reasons(self) -> list[str]:
        return [reason for _, reason, _ in self]
