"""Work on one row is linear: each path with one row, and with one of twice the size.

Run as:  python benchmarks/linear_rows.py [PART OF A NAME ...]

Processor seconds, the least of three; a ratio of about 2 is linear work. Each path has the shape of
row that once took the square of the time, or more.
"""

from __future__ import annotations

import json
import platform
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from graftlab.data.answers import answer_problems
from graftlab.data.files import read_rows
from graftlab.data.jsonl import JsonlData
from graftlab.models.tiny import TinyModel
from graftlab.recipes.curate import read_book
from graftlab.recipes.dedupe import Dedupe
from graftlab.recipes.guards import Guards
from graftlab.recipes.markdown import structured
from graftlab.recipes.outline import outline
from graftlab.recipes.record import Record
from graftlab.recipes.report.signs import signs_in
from graftlab.recipes.sentences import sentences_of
from graftlab.text.encode import encode
from graftlab.text.turns import TurnReader
from graftlab.types import Conversation, Message

Work = Callable[[], Any]


def words(count: int) -> str:
    draw = random.Random(0)
    return " ".join(f"w{draw.randrange(5000)}" for _ in range(count)) + "."


def talk(turns: int, text: str = "A short turn of a long conversation.") -> Conversation:
    roles = ("user", "assistant") * (turns // 2)
    return Conversation(tuple(Message(role, text) for role in roles), "row", 1)


def record(asked: str, answer: str) -> Record:
    turns = [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
    return Record("chat", {"messages": turns}, "row:1")


def guard(size: int) -> Work:
    row = record(words(size), " ".join(reversed(words(size).split())))
    return lambda: Guards().problem(row)


def dedupe(size: int) -> Work:
    rows = [record(words(size), words(size) + str(copy)) for copy in range(2)]
    return lambda: list(Dedupe().apply(iter(rows), lambda *_: None))


def reading(size: int) -> Work:
    folder = Path(tempfile.mkdtemp())
    messages = [message.as_dict() for message in talk(size).messages]
    (folder / "row.json").write_text(json.dumps([{"messages": messages}], indent=1))
    return lambda: list(read_rows(folder / "row.json"))


def loading(size: int) -> Work:
    folder = Path(tempfile.mkdtemp())
    messages = [message.as_dict() for message in talk(size).messages]
    (folder / "rows.jsonl").write_text(json.dumps({"messages": messages}) + "\n")
    data = JsonlData(train=str(folder / "rows.jsonl"), valid_fraction=0)
    reserved = TinyModel().load_tokenizer().reserved
    return lambda: data.load(reserved=reserved)


def drafting(size: int) -> Work:
    tokenizer, conversation = TinyModel().load_tokenizer(), talk(size)
    return lambda: TurnReader(tokenizer).drafts(conversation)


def encoding(conversation: Conversation) -> Work:
    tokenizer = TinyModel().load_tokenizer()

    def work() -> None:
        with tempfile.TemporaryDirectory() as cache:
            encode([conversation], tokenizer, max_length=2**30, cache=Path(cache))

    return work


def schema(size: int) -> Work:
    inner = {"type": "object", "properties": {"x": {"type": "string", "pattern": "^(a|b)+!?$"}}}
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": inner}}
    answer = Message("assistant", json.dumps({"x": "a" * size + "!"}))
    return lambda: answer_problems([Message("user", "Which?", wanted), answer])


def book(text: Callable[[int], str]) -> Callable[[int], Work]:
    def made(size: int) -> Work:
        told = f"A line of prose.\n{text(size)}\nThe end."
        return lambda: read_book(told)

    return made


PATHS: dict[str, tuple[int, Callable[[int], Work]]] = {
    "guard: leakage, words": (50_000, guard),
    "dedupe: words": (50_000, dedupe),
    "report: e-mail in a word": (200_000, lambda n: lambda: signs_in("@ " + "a" * n)),
    "curate: a word": (200_000, book(lambda n: "a" * n + "-\n" + "b" * n)),
    "curate: a page number behind spaces": (200_000, book(lambda n: "a" + " " * n + "b")),
    "curate: dots": (200_000, book(lambda n: "." * n + "b")),
    "curate: lines of one paragraph": (10_000, book(lambda n: "and then it went on\n" * n)),
    "curate: pages of one paragraph": (5_000, book(lambda n: "and then it went on\n\f\n" * n)),
    "curate: headings": (10_000, book(lambda n: "Contents\n\n" + "The Tale\n\n" * n)),
    "sentences: initials": (50_000, lambda n: lambda: sentences_of("He met " + "A. " * n)),
    "outline: a word": (200_000, lambda n: lambda: outline("He saw " + "a" * n)),
    "outline: words": (2_000, lambda n: lambda: outline("dogs bark and " * n)),
    "markdown: line ends": (200_000, lambda n: lambda: structured("How?", "\n" * n + "a.")),
    "markdown: words": (50_000, lambda n: lambda: structured("How?", words(n))),
    "data: an array's only row, turns": (10_000, reading),
    "data: load, turns": (10_000, loading),
    "schema: a pattern, characters": (20_000, schema),
    "drafting: turns": (2_000, drafting),
    "encoding: turns": (2_000, lambda n: encoding(talk(n))),
    "encoding: a word": (100_000, lambda n: encoding(talk(2, "a" * n))),
}


def seconds(work: Work) -> float:
    taken = []
    for _ in range(3):
        start = time.process_time()
        work()
        taken.append(time.process_time() - start)
    return min(taken)


def main(wanted: list[str]) -> None:
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}\n")
    print("| path | size | seconds | twice the size | ratio |\n|---|---:|---:|---:|---:|")
    for name, (size, make) in PATHS.items():
        if wanted and not any(part in name for part in wanted):
            continue
        once, twice = seconds(make(size)), seconds(make(2 * size))
        ratio = f"{twice / once:.1f}" if once > 0 else "-"
        print(f"| {name} | {size:,} | {once:.3f} | {twice:.3f} | {ratio} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
