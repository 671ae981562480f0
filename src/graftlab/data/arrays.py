"""The elements of a JSON array, read as a stream: one of them is in memory at a time.

bytes ──▶ text, a piece at a time ──▶ [ element , element , ... ]
          └── grows until the element in hand is whole, and lets go of what is behind it

A parser of events (ijson) would build every value in Python and knows no line numbers; here the C
decoder of the standard library is asked again with more text where it ran into the end.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import IO, Any

from graftlab.data.decoding import Decoder, broken_reason, end_of_value
from graftlab.files.reading import TOO_DEEP

LONGEST_ROW = 64 * 2**20
"""Bytes of a row that are still read; more is a problem of that row."""

_PIECE = 2**18
_SHOWN = 200
_KEPT = 100_000  # characters of a refused row
_BLANK = re.compile(r"\s*")
_ESCAPED = re.compile("[\udc80-\udcff]")
_CUT_STRING = "Unterminated string"
_NEAR_END = 16
"""No token but a string is longer: an error further from the end of the text is a real one."""


@dataclass(frozen=True, slots=True)
class RawRow:
    """One row as it stands in the file; `problem` says why it could not be parsed.

    `value` is the parsed JSON, or the raw text where there is a problem. `ends` says that nothing
    after it could be read either.
    """

    line: int
    value: Any
    problem: str | None = None
    ends: bool = False
    index: int = 0
    """Its place in a JSON array, 1-based; 0 in a file of lines."""


class Broken(Exception):
    """Why a value cannot be read; caught here and in `files.py`, shown with its line."""

    def __init__(self, reason: str, line: int, text: str) -> None:
        super().__init__(reason)
        self.line, self.text = line, text


class TooLong(Broken):
    """A value that goes on beyond LONGEST_ROW."""


class JsonStream:
    """JSON values in a file, one after another; `line` is that of the next one, 1-based.

    `problem` is what is wrong with the last value, although it could be read.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self.line = 1
        self.problem: str | None = None
        self._json = Decoder()
        self._file, self._text, self._at, self._ended = file, "", 0, False
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")("surrogateescape")

    def peek(self) -> str:
        """The next character that is not blank; empty at the end of the file."""
        while True:
            match = _BLANK.match(self._text, self._at)
            assert match is not None
            self._move(match.end())
            if self._at < len(self._text) or self._ended:
                return self._text[self._at : self._at + 1]
            self._fill()

    def skip(self) -> None:
        """Pass over one character that was seen."""
        self._move(self._at + 1)

    def rest(self) -> str:
        """What comes next, to be shown."""
        return _readable(self._text[self._at : self._at + _SHOWN])

    def value(self) -> tuple[Any, str]:
        """The next value and its text, in which bytes that are not UTF-8 are lone surrogates.

        Raises Broken where it is not JSON, and TooLong where LONGEST_ROW and more does not end it.
        """
        while True:
            try:
                value, end = self._json.raw_decode(self._text, self._at)
                # A number near the end of the text may go on: 0 and 0. are the beginning of 0.5.
                if end <= len(self._text) - _NEAR_END or self._ended:
                    break
            except json.JSONDecodeError as error:
                if self._ended or not _cut_short(error, len(self._text)):
                    line = self.line + self._text.count("\n", self._at, error.pos)
                    raise Broken(broken_reason(error), line, self.rest()) from error
                if len(self._text) - self._at > LONGEST_ROW:
                    raise TooLong(too_long(), self.line, self.rest()) from error
            except RecursionError as error:
                if (found := end_of_value(self._text, self._at)) is not None:
                    self.problem = TOO_DEEP
                    return None, self._taken(found)
                if self._ended or len(self._text) - self._at > LONGEST_ROW:
                    raise Broken(TOO_DEEP, self.line, self.rest()) from error
            self._fill()
        text = self._taken(end)
        self._json.measure(value, text)
        self.problem = self._json.problem
        return value, text

    def _taken(self, end: int) -> str:
        """The text up to `end`, which is passed over."""
        text = self._text[self._at : end]
        self._move(end)
        return text

    def _fill(self) -> None:
        """Read on: as much again as is waiting, so that a long value is tried few times."""
        waiting = self._text[self._at :]
        data = self._file.read(max(_PIECE, len(waiting)))
        self._ended = not data
        self._text, self._at = waiting + self._decoder.decode(data, final=self._ended), 0

    def _move(self, to: int) -> None:
        self.line += self._text.count("\n", self._at, to)
        self._at = to


def _cut_short(error: json.JSONDecodeError, length: int) -> bool:
    """Whether more text could mend it."""
    return error.msg.startswith(_CUT_STRING) or error.pos > length - _NEAR_END


def too_long() -> str:
    """What to say of a row that is not read."""
    return f"a row of over {LONGEST_ROW >> 20} MB is not read: leave it out, or cut it into several"


def array_rows(file: IO[bytes]) -> Iterator[RawRow]:
    """The rows of a JSON array; one whose elements are all messages is itself one conversation."""
    waiting: list[RawRow] = []
    size = 0
    rows = _elements(JsonStream(file))
    for row, text in rows:
        size += len(text)
        if row.problem is None and not is_message(row.value):
            yield from waiting
            yield row
            yield from (row for row, _ in rows)
            return
        if size > LONGEST_ROW:
            reason = f"{too_long()} (an array of nothing but messages is one conversation)"
            yield RawRow(1, str(waiting[0].value)[:_SHOWN], reason, ends=True)
            return
        waiting.append(row)
    messages = [row.value for row in waiting if row.problem is None]
    broken = [row for row in waiting if row.problem]
    if messages:
        yield broken[0] if broken else RawRow(1, messages)
    else:
        yield from waiting or [RawRow(1, "", "the file holds no rows")]


def _elements(stream: JsonStream) -> Iterator[tuple[RawRow, str]]:
    """The elements of the array that begins here, each with the line it starts on and its text."""
    assert stream.peek() == "["
    stream.skip()
    index = 0
    while stream.peek() != "]":
        line, index = stream.line, index + 1
        try:
            value, text = stream.value()
        except Broken as broken:
            reason = str(broken) if isinstance(broken, TooLong) else f"broken JSON: {broken}"
            yield replace(_last(broken.line, broken.text, reason), index=index), ""
            return
        yield replace(element(line, value, text, stream.problem), index=index), text
        if (mark := stream.peek()) == ",":
            stream.skip()
        elif mark != "]":
            yield _last(stream.line, stream.rest(), "broken JSON: expected ',' or ']'"), ""
            return
    stream.skip()
    if stream.peek():
        reason = "broken JSON: something follows the end of the array"
        yield _last(stream.line, stream.rest(), reason), ""


def element(line: int, value: Any, text: str, problem: str | None = None) -> RawRow:
    """A value that was read, or the problem with its text."""
    if len(text) > LONGEST_ROW:
        return RawRow(line, _readable(text[:_SHOWN]), too_long())
    if problem is not None:
        return RawRow(line, _readable(text[:_KEPT]), problem)
    if text.isascii() or (found := _ESCAPED.search(text)) is None:
        return RawRow(line, value)
    place = line + text.count("\n", 0, found.start())
    return RawRow(line, _readable(text), not_utf8(ord(found.group()) - 0xDC00, f"on line {place}"))


def _last(line: int, text: str, reason: str) -> RawRow:
    return RawRow(line, text, f"{reason}; the rest is unread", ends=True)


def not_utf8(byte: int, where: str) -> str:
    """What to say of text in another encoding."""
    return (
        f"not UTF-8 (byte 0x{byte:02X} {where}): convert the file, "
        "for instance with iconv -f LATIN1 -t UTF-8"
    )


def _readable(text: str) -> str:
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def is_message(value: Any) -> bool:
    """Whether `value` looks like a turn of a conversation: an object that carries a role."""
    return isinstance(value, dict) and ("role" in value or "from" in value)


def is_message_list(value: Any) -> bool:
    """Whether `value` looks like one conversation: a list of messages."""
    return isinstance(value, list) and bool(value) and all(map(is_message, value))
