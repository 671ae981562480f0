"""Guards: chats that would teach the wrong thing are dropped, with the numbers that say so.

    empty     cut off     refusal     too short     too long     leakage     (the first that holds)

Leakage is an answer that can be copied out of its question: a model trained on such pairs learns to
copy rather than to write.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from graftlab.errors import ConfigError, require_range
from graftlab.recipes.overlap import longest_run, shared_ngrams, words_of
from graftlab.recipes.record import Drop, Record
from graftlab.recipes.refusals import refusal_in

EMPTY = "empty answer"
CUT_OFF = "cut-off answer"
REFUSAL = "refusal"
TOO_SHORT = "answer too short"
TOO_LONG = "answer too long"
LEAKAGE = "leakage"

_LISTED = re.compile(r"\s*(?:[-*+#>|]|\d+[.)]|```)")
_OPEN = re.compile(
    r"(?:[,(\[—-]|\b(?:a|an|and|are|as|at|but|by|for|from|has|in|is|of|on|or|than|that|the|their"
    r"|to|was|were|which|who|with))$",
    re.I,
)
_LONG = 30
"""Words from which on an answer is prose and ends with a mark of punctuation."""


@dataclass(kw_only=True, slots=True)
class Guards:
    """`guards=default`: looks at the last question and answer of each chat record."""

    min_words: int = 1
    """Shortest answer."""
    max_words: int | None = None
    """Longest answer; null for no limit."""
    ngram: int = 4
    """Length in words of the runs that max_overlap counts."""
    max_overlap: float | None = 0.5
    """Leakage: largest share of the answer's n-grams that the question may hold; null for any."""
    leak_run: int | None = 8
    """Leakage: so many words in a row that question and answer share; null for any."""
    refusals: bool = True
    """Drop answers in which a language model speaks of itself or declines."""
    cut_off: bool = True
    """Drop answers that stop within a sentence."""

    def __post_init__(self) -> None:
        require_range("guards.min_words", self.min_words, least=0)
        require_range("guards.ngram", self.ngram, least=1)
        require_range("guards.max_overlap", self.max_overlap, least=0, most=1)
        require_range("guards.leak_run", self.leak_run, least=1)
        if self.max_words is not None and self.max_words < max(1, self.min_words):
            raise ConfigError(
                f"guards.max_words={self.max_words} is below guards.min_words={self.min_words}."
            )

    def apply(self, records: Iterator[Record], drop: Drop) -> Iterator[Record]:
        """The chats that may stay; records of other kinds pass."""
        for record in records:
            found = self.problem(record) if record.kind == "chat" else None
            if found is None:
                yield record
            else:
                drop(record, *found)

    def problem(self, record: Record) -> tuple[str, str] | None:
        """(reason, detail) of what is wrong with a chat, or None."""
        asked, answer = _last_pair(record)
        if not answer.strip():
            last = (record.body.get("messages") or [{}])[-1]
            return None if last.get("tool_calls") else (EMPTY, "")
        if self.cut_off and is_cut_off(answer):
            return CUT_OFF, f"ends with {answer.rstrip()[-40:]!r}"
        if self.refusals and (said := refusal_in(answer)):
            return REFUSAL, said
        count = len(answer.split())
        if count < self.min_words:
            return TOO_SHORT, f"{count} words, guards.min_words={self.min_words}"
        if self.max_words is not None and count > self.max_words:
            return TOO_LONG, f"{count} words, guards.max_words={self.max_words}"
        return self._leak(words_of(asked), words_of(answer))

    def _leak(self, asked: list[str], answered: list[str]) -> tuple[str, str] | None:
        shared = shared_ngrams(asked, answered, self.ngram)
        run = longest_run(asked, answered)
        over = self.max_overlap is not None and shared > self.max_overlap
        long = self.leak_run is not None and run >= self.leak_run
        if not over and not long:
            return None
        return LEAKAGE, (
            f"{shared:.0%} of {self.ngram}-grams (at most {_limit(self.max_overlap, '.0%')}), "
            f"longest run {run} words (a leak from {_limit(self.leak_run, 'd')})"
        )


def is_cut_off(answer: str) -> bool:
    """Whether an answer stops within a sentence, as far as its end shows."""
    last = answer.rstrip().rsplit("\n", 1)[-1]
    if _OPEN.search(last):
        return True
    long = len(answer.split()) >= _LONG and last[-1:].isalpha()
    return long and not _LISTED.match(last)


def _limit(value: float | None, form: str) -> str:
    return "any" if value is None else format(value, form)


def _last_pair(record: Record) -> tuple[str, str]:
    """The last answer of a conversation and the question before it; "" for what is missing."""
    asked, answer = "", ""
    for message in record.body.get("messages", []):
        if message["role"] == "user":
            asked, answer = str(message["content"]), ""
        elif message["role"] == "assistant":
            answer = str(message["content"])
    return asked, answer
