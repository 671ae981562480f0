"""Work on one row is linear: hostile rows end at once, and what was found before is found still.

The former patterns and loops stand here as the reference; they take the square of the time.
"""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from graftlab.recipes import lines, marks, sentences
from graftlab.recipes.curate import read_book
from graftlab.recipes.debris import Book
from graftlab.recipes.guards import Guards
from graftlab.recipes.lines import WordCounts, join_lines
from graftlab.recipes.outline import outline
from graftlab.recipes.overlap import longest_run
from graftlab.recipes.record import Record
from graftlab.recipes.report.signs import SIGNS, signs_in
from slower import mostly_slow

HOSTILE = """
import sys
sys.path[:0] = {path!r}
from test_linear_rows import WORK
WORK[{name!r}]()
"""
SIZE = 200_000
PROCESSOR_SECONDS = 30
"""Linear work on a row of SIZE takes a second or two; the former code took minutes to days."""

WORD = "a" * SIZE


def chat(asked: str, answer: str) -> Record:
    turns = [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
    return Record("chat", {"messages": turns}, "file:1")


def guard_words() -> None:
    draw = random.Random(0)
    words = [f"w{draw.randrange(2000)}" for _ in range(100_000)]
    assert Guards().problem(chat(" ".join(words), " ".join(reversed(words)) + ".")) is None


def guard_same_words() -> None:
    found = Guards().problem(chat("a " * 100_000, "a " * 99_999 + "b."))
    assert found is not None
    assert "99999 words" in found[1]


def mail_in_a_word() -> None:
    assert [sign.name for sign, _ in signs_in(f"@ {WORD}")] == ["very long words"]


def book_of(*texts: str) -> Callable[[], None]:
    def read() -> None:
        for text in texts:
            read_book(f"A line of prose that stays as it is, whatever follows.\n{text}\nThe end.")

    return read


def outlined() -> None:
    assert outline(f"Dogs saw {WORD} " + "(" * (SIZE // 20) + " " * SIZE + "men.").endswith(", men")


WORK: dict[str, Callable[[], None]] = {
    "the guard, all words other": guard_words,
    "the guard, all words the same": guard_same_words,
    "e-mail addresses in a word": mail_in_a_word,
    "a word": book_of(WORD, WORD + "-\n" + WORD),
    "a page number behind a gap": book_of("a" + " " * SIZE + "b", ". " * (SIZE // 2) + "b"),
    "dots": book_of("." * SIZE + "b", "\n".join(["." * SIZE + "b"] * 3)),
    "one paragraph of short lines": book_of("and then\n" * (SIZE // 9)),
    "a paragraph over many pages": book_of("and then it went on\n\f\n" * (SIZE // 20)),
    "titles": book_of("Preface\n\n" * 50_000, "Appendix\n\n" + "Some words here\n\n" * 50_000),
    "contents": book_of("Contents\n\n" + "The Tale\n\n" * 50_000),
    "initials": lambda: assert_single("He met " + "A. " * (SIZE // 3) + "and left"),
    "outlines": outlined,
}


def assert_single(text: str) -> None:
    assert len(sentences.sentences_of(text)) == 1


@pytest.mark.parametrize("name", mostly_slow(WORK, *list(WORK)[::3]))
def test_a_hostile_row_ends(name: str) -> None:
    """In a process with a limit of processor time, so that other processes do not matter."""
    import resource

    script = HOSTILE.format(
        path=[os.path.dirname(__file__), os.path.dirname(os.path.dirname(__file__))], name=name
    )
    seconds = (PROCESSOR_SECONDS, PROCESSOR_SECONDS)
    done = subprocess.run(
        [sys.executable, "-c", script],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CPU, seconds),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:] or "it took too long"


def texts(letters: str, count: int = 3000, longest: int = 12) -> list[str]:
    draw = random.Random(letters)
    return ["".join(draw.choices(letters, k=draw.randint(0, longest))) for _ in range(count)]


FORMER: list[tuple[str, Callable[[str], Any], Callable[[str], Any]]] = [
    (
        "a1@.+- ",
        lambda text: SIGNS[-1].find(text),
        lambda text: _span(re.search(r"[\w.+-]+@[\w-]+\.[\w.-]*\w", text)),
    ),
    (
        "a1 \t",
        lambda text: bool(marks.NUMBERED_PAGE.search(text)),
        lambda text: bool(re.search(r"^\s*\d+\s+\D|\D\s+\d+\s*$", text)),
    ),
    (
        "a1ix. .",
        lambda text: bool(marks._DOTTED.search(text)),
        lambda text: bool(
            re.fullmatch(r".*(?:\.{3,}|(?:\. ){3,})\s*(?:\d{1,4}|[ivxlc]+)\s*", text, re.I)
        ),
    ),
    (
        "a1ix  ",
        lambda text: bool(marks._SPACED.search(text)),
        lambda text: bool(re.fullmatch(r".*\s{2,}(?:\d{1,4}|[ivxlc]+)\s*", text, re.I)),
    ),
    (
        "ab1-",
        lambda text: _span(lines._BROKEN.search(text)),
        lambda text: _span(re.search(r"([^\W\d_]+)-$", text)),
    ),
    (
        "ab1-\n",
        lambda text: lines._HALVES.sub("|", text),
        lambda text: re.sub(r"[^\W\d_]+-\n\s*[^\W\d_]+", "|", text),
    ),
]


def _span(match: re.Match[str] | None) -> tuple[int, int] | None:
    return match.span() if match else None


@pytest.mark.parametrize(("letters", "now", "former"), FORMER, ids=[case[0] for case in FORMER])
def test_patterns_find_what_they_found(
    letters: str, now: Callable[[str], Any], former: Callable[[str], Any]
) -> None:
    given = texts(letters)
    assert [now(text) for text in given] == [former(text) for text in given]
    assert len({json.dumps(former(text)) for text in given}) > 1


def former_run(asked: list[str], answered: list[str]) -> int:
    longest = min(len(asked), len(answered))
    runs = {tuple(asked[i : i + n]) for n in range(longest + 1) for i in range(len(asked) - n + 1)}
    for size in range(longest, 0, -1):
        if any(tuple(answered[i : i + size]) in runs for i in range(len(answered) - size + 1)):
            return size
    return 0


def test_the_longest_run_is_the_one_that_trying_all_finds() -> None:
    draw = random.Random(0)
    found = []
    for _ in range(2000):
        letters = "abc"[: draw.randint(1, 3)]
        asked, answered = (draw.choices(letters, k=draw.randint(0, 12)) for _ in range(2))
        found.append(longest_run(asked, answered))
        assert found[-1] == former_run(asked, answered), (asked, answered)
    assert len(set(found)) > 5


def former_join(given: list[str], vocabulary: WordCounts) -> str:
    text = ""
    for line in given:
        after = " ".join(line.split())
        if not text or not after:
            text = text or after
            continue
        broken, first = re.search(r"([^\W\d_]+)-$", text), re.match(r"[^\W\d_]+", after)
        if broken and first and after[0].islower():
            word = vocabulary.join(broken.group(1), first.group())
            text = text[: broken.start()] + word + after[first.end() :]
        else:
            text += ("" if text[-1] in "-—" or after[0] == "—" else " ") + after
    return text


def test_lines_are_joined_as_one_after_the_other() -> None:
    draw = random.Random(1)
    pieces = ["and", "be-", "neath", "A-", "—", "1-", "x-y-", " ", "", "to- ", "  gether", "é-"]
    vocabulary = WordCounts("beneath together stone-crowned x-y")
    for _ in range(3000):
        given = draw.choices(pieces, k=draw.randint(0, 6))
        assert join_lines(given, vocabulary) == former_join(given, vocabulary), given


def test_initials_end_no_sentence_and_numbers_do() -> None:
    told = "He met A. B. Smith. It was 12. The end came at 5 p.m. There. On no. 7 it rained."
    assert sentences.sentences_of(told) == [
        "He met A. B. Smith.",
        "It was 12. The end came at 5 p.m. There.",
        "On no. 7 it rained.",
    ]


def test_sections_end_where_they_ended() -> None:
    """A preface ends with the last numbered heading's kind; contents with a repeated one."""
    blocks = ["PREFACE", "I say this.", "CHAPTER I", "Once there was.", "NOTES", "Gone too."]
    kept = [block.text for _, block in Book("\n\n".join(blocks)).prose]
    assert kept == ["Once there was."]
    titles = ["CONTENTS", "The Tale", "The End", "The Tale", "Once there was."]
    kept = [block.text for _, block in Book("\n\n".join(titles)).prose]
    assert kept == ["Once there was."]
