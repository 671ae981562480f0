"""JSON values as they stand: what JSON has no single meaning for is a problem, not a guess.

The decoder of the standard library keeps the last of two equal keys, reads NaN, which is not JSON,
and fails on long numbers and deep nesting with errors of its own.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from typing import Any

from graftlab.files.reading import DEEPEST, TOO_DEEP, deeper_than

_TOKENS = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL)
_NEARBY = 40


class Decoder:
    """Decodes one value after another; `problem` says what is wrong with the last one."""

    def __init__(self) -> None:
        self._found: list[str] = []
        self._objects = [0]  # of the last value
        hooks: dict[str, Any] = {
            "object_pairs_hook": _building(self._found, self._objects),
            "parse_constant": self._constant,
        }
        self._plain = json.JSONDecoder(**hooks)
        self._patient = json.JSONDecoder(**hooks, parse_int=self._whole)

    @property
    def problem(self) -> str | None:
        return self._found[-1] if self._found else None

    def decode(self, text: str) -> Any:
        """The value of a text. Raises json.JSONDecodeError or RecursionError."""
        self._reset()
        try:
            value = self._plain.decode(text)
        except json.JSONDecodeError:
            raise
        except ValueError:  # Python reads whole numbers of at most 4,300 digits
            value = self._patient.decode(text)
        self.measure(value, text)
        return value

    def raw_decode(self, text: str, at: int) -> tuple[Any, int]:
        """The value that begins at `at`, and where it ends; `measure` is yet to be called."""
        self._reset()
        try:
            return self._plain.raw_decode(text, at)
        except json.JSONDecodeError:
            raise
        except ValueError:
            return self._patient.raw_decode(text, at)

    def measure(self, value: Any, text: str) -> None:
        """Note a value that is nested too deeply; few have brackets enough for that."""
        left, at = DEEPEST - self._objects[0], -1
        while left >= 0 and (at := text.find("[", at + 1)) >= 0:
            left -= 1
        if left < 0 and deeper_than(value, DEEPEST):
            self._found.append(TOO_DEEP)

    def _reset(self) -> None:
        self._found.clear()
        self._objects[0] = 0

    def _constant(self, name: str) -> None:
        self._found.append(f"{name} is not JSON: write null, or a number")

    def _whole(self, digits: str) -> int:
        try:
            return int(digits)
        except ValueError:
            self._found.append(f"a number of {len(digits):,} digits")
            return 0


def _building(
    found: list[str], objects: list[int]
) -> Callable[[list[tuple[str, Any]]], dict[str, Any]]:
    """The hook for objects: a closure, as it is called for every turn of every row."""

    def build(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        objects[0] += 1
        value = dict(pairs)
        if len(value) != len(pairs):
            twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
            found.append(f"the key `{twice[:_NEARBY]}` stands twice in one object: keep one")
        return value

    return build


def decoded(text: str) -> Any:
    """The value of a JSON text inside a row. Raises ValueError with the reason."""
    decoder = Decoder()
    try:
        value = decoder.decode(text)
    except json.JSONDecodeError as error:
        raise ValueError(broken_reason(error)) from None
    except RecursionError:
        raise ValueError(TOO_DEEP) from None
    if decoder.problem:
        raise ValueError(decoder.problem)
    return value


def end_of_value(text: str, at: int) -> int | None:
    """Where the array or object that begins at `at` ends; None where the text ends first."""
    depth = 0
    for token in _TOKENS.finditer(text, at):
        if token[0] in "[{":
            depth += 1
        elif token[0] in "]}":
            depth -= 1
            if depth == 0:
                return token.end()
    return None


def broken_reason(error: json.JSONDecodeError) -> str:
    """Why a text is not JSON, by what stands there."""
    doc, place = error.doc, error.pos
    rest = doc[place : place + _NEARBY].lstrip()
    before = doc[max(0, place - _NEARBY) : place].rstrip()
    if rest.startswith("\0"):
        return "a NUL byte; the file was damaged, or is not text"
    if rest.startswith("'"):
        return "single quotes: a Python literal, not JSON; write rows with json.dumps"
    if rest.startswith(("True", "False", "None")):
        return "True, False and None are Python's: JSON has true, false and null"
    if error.msg.startswith("Extra data"):
        if rest.rstrip() == ",":
            return "a comma behind the row: lines of JSON have none (an array begins with [)"
        if rest.startswith(("{", "[")):
            return "a second row on the same line: each row is a line of its own"
    if "trailing comma" in error.msg or (rest.startswith(("]", "}")) and before.endswith(",")):
        return "a comma in front of a closing bracket"
    return error.msg
