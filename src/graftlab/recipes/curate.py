"""Curate: plain prose in, chunks of whole paragraphs out, every stripped piece with its reason.

text ──▶ plain characters ──▶ debris stripped ──▶ paragraphs ──▶ chunks
          (characters.py)      (debris.py)        (lines.py)

section    p1 p2 | h | p3 p4 p5 p6        h: a heading; no chunk reaches over one
chunks     [p1 p2]     [p3 p4] [p5 p6]    of about equal length, paragraphs whole
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from graftlab.errors import ConfigError, require_choice, require_range
from graftlab.recipes.characters import plain_characters
from graftlab.recipes.debris import Book, Piece
from graftlab.recipes.lines import Paragraph, WordCounts, add_line, goes_on, paragraphs_of
from graftlab.recipes.record import PIECE, Drop, Record

UNITS = ("words", "tokens")

SHORT = "short paragraph"
LONG = "paragraph longer than a chunk"
SCANT = "too little text for a chunk"
ENOUGH = "beyond curate.target_tokens"
NOTHING = "no prose found"
NOT_TEXT = "not plain text"


def count_tokens(text: str) -> int:
    """About how many tokens a model will read in `text`: a quarter of its UTF-8 bytes.

    An estimate, so that a corpus can be prepared before a model is chosen.
    """
    return math.ceil(len(text.encode("utf-8", "replace")) / 4)


@dataclass(kw_only=True, slots=True)
class Curate:
    """`curate=default`: takes text records to text records of one chunk each."""

    min_para_words: int = 60
    """Shorter paragraphs carry too little style and are dropped."""
    min_length: int = 60
    """Shortest chunk, in `unit`."""
    max_length: int = 450
    """Longest chunk, in `unit`; a paragraph that is longer by itself is dropped."""
    unit: str = "words"
    """What chunks are measured in: words, or tokens (estimated at four bytes each)."""
    target_tokens: int | None = 900_000
    """Stop when the chunks hold about so many tokens; null takes all there is."""

    def __post_init__(self) -> None:
        require_range("curate.min_para_words", self.min_para_words, least=0)
        require_range("curate.min_length", self.min_length, least=1)
        require_choice("curate.unit", self.unit, UNITS)
        require_range("curate.target_tokens", self.target_tokens, least=1)
        if self.max_length < self.min_length:
            raise ConfigError(
                f"curate.max_length={self.max_length} is below curate.min_length="
                f"{self.min_length}: a chunk could never be both."
            )

    def apply(self, records: Iterator[Record], drop: Drop) -> Iterator[Record]:
        """One record per chunk, labelled with its number and the line where it begins.

        A stripped piece is dropped as a record of its own, derived from the text; a text of which
        nothing is left is dropped as well.
        """
        number, tokens = 0, 0
        for record in records:
            if record.kind != "text":
                drop(record, NOT_TEXT, f"a {record.kind} record; curate takes text")
                continue
            if self.target_tokens is not None and tokens >= self.target_tokens:
                drop(record, ENOUGH, f"{tokens} tokens were reached before")
                continue
            text, kept = record.body["text"], 0
            for chunk in self._chunks(record, text, drop):
                said, line = _text_of(chunk), chunk[0].line
                length = count_tokens(said)
                if self.target_tokens is not None and tokens + length > self.target_tokens:
                    # The next may be shorter, but a corpus should not be picked by length.
                    tokens = max(tokens, self.target_tokens)
                    _strip(record, said, line, ENOUGH, drop)
                    continue
                number, kept, tokens = number + 1, kept + 1, tokens + length
                labels = {**record.labels, "chunk": str(number), "line": str(line)}
                yield replace(record, body={"text": said}, labels=labels)
            if not kept:
                drop(record, NOTHING, f"of {len(text.split())} words")

    def _chunks(self, record: Record, text: str, drop: Drop) -> Iterator[list[Paragraph]]:
        paragraphs, pieces = read_book(text)
        for piece in pieces:
            _strip(record, piece.text, piece.line, piece.reason, drop)
        whole = []
        for paragraph in paragraphs:
            if reason := self._refused(paragraph):
                more = f": {paragraph.words} words"
                _strip(record, paragraph.text, paragraph.line, reason, drop, more)
            else:
                whole.append(paragraph)
        for _, section in groupby(whole, key=lambda paragraph: paragraph.section):
            for chunk in self._split(list(section)):
                length = sum(map(self._length, chunk))
                if length >= self.min_length:
                    yield chunk
                else:
                    more = f": {length} {self.unit}"
                    _strip(record, _text_of(chunk), chunk[0].line, SCANT, drop, more)

    def _refused(self, paragraph: Paragraph) -> str:
        if paragraph.words < self.min_para_words:
            return SHORT
        return LONG if self._length(paragraph) > self.max_length else ""

    def _length(self, paragraph: Paragraph) -> int:
        return paragraph.words if self.unit == "words" else count_tokens(paragraph.text)

    def _split(self, section: Sequence[Paragraph]) -> list[list[Paragraph]]:
        """The paragraphs of one section as chunks of about equal length, none too long."""
        total = sum(map(self._length, section))
        least = math.ceil(total / self.max_length)
        # One chunk more than the least may leave no scant one over.
        tries = [self._filled(section, total / count) for count in (least, least + 1)]
        return min(tries, key=self._scant)

    def _scant(self, chunks: Sequence[Sequence[Paragraph]]) -> int:
        """What of the chunks is too little to be one."""
        lengths = [sum(map(self._length, chunk)) for chunk in chunks]
        return sum(length for length in lengths if length < self.min_length)

    def _filled(self, section: Sequence[Paragraph], goal: float) -> list[list[Paragraph]]:
        """Chunks filled in order, each closed where that comes nearest to `goal`."""
        chunks: list[list[Paragraph]] = []
        filled = 0
        for paragraph in section:
            length = self._length(paragraph)
            if not chunks or filled + length > self.max_length or filled + length / 2 > goal:
                chunks.append([])
                filled = 0
            chunks[-1].append(paragraph)
            filled += length
        if len(chunks) > 1 and filled < self.min_length:
            before = sum(map(self._length, chunks[-2]))
            if before + filled <= self.max_length:
                chunks[-2:] = [chunks[-2] + chunks[-1]]
        return chunks


def _text_of(chunk: Sequence[Paragraph]) -> str:
    return "\n\n".join(paragraph.text for paragraph in chunk)


def _strip(record: Record, text: str, line: int, reason: str, drop: Drop, more: str = "") -> None:
    """Drop a part of a text, as a record derived from it."""
    labels = {**record.labels, PIECE: str(line)}
    drop(replace(record, body={"text": text}, labels=labels), reason, f"line {line}{more}")


def read_book(text: str) -> tuple[list[Paragraph], list[Piece]]:
    """The paragraphs of prose in `text`, and what was stripped, both by line."""
    text = plain_characters(text)
    book, vocabulary = Book(text), WordCounts(text)
    found: list[tuple[int, int, list[str]]] = []
    for section, block in book.prose:
        cleaned = book.clean(block)
        for line, said in paragraphs_of(cleaned, vocabulary):
            # A page may have ended within a paragraph: the first after a cut may go on.
            healable = found and found[-1][1] == section and line == cleaned.line
            if healable and block.after_cut and goes_on(found[-1][2][-1], said):
                add_line(found[-1][2], said, vocabulary)
            else:
                found.append((line, section, [said]))
    paragraphs = [Paragraph(line, "".join(parts), section) for line, section, parts in found]
    pieces = sorted(book.pieces, key=lambda piece: piece.line)
    return paragraphs, pieces
