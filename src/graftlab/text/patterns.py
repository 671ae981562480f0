"""Regular expressions that come with data: searched with a time limit.

`re` tries every way through `^(a+)+$` and never ends; the package `regex` takes a limit.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

LIMIT = 2.0
"""Seconds of searching per text; a pattern without nested repeats takes microseconds."""


class PatternProblem(Exception):
    """A pattern that cannot be searched for, or not in time; the message says which."""


@lru_cache(maxsize=4096)
def compiled(pattern: str, lines: bool = False) -> Any:
    """The expression; with `lines`, `^` and `$` match at each. Raises PatternProblem for none."""
    import regex

    try:
        return regex.compile(pattern, regex.M if lines else 0)
    except (regex.error, OverflowError, RecursionError) as error:
        raise PatternProblem(
            f"the pattern {_short(pattern)} is no regular expression: {error}"
        ) from error


def is_found(
    pattern: str, text: str, *, whole: bool = False, lines: bool = False, seconds: float = LIMIT
) -> bool:
    """Whether it is in a text, or is all of it. Raises PatternProblem, also where it takes long."""
    expression = compiled(pattern, lines)
    search = expression.fullmatch if whole else expression.search
    try:
        return search(text, timeout=max(seconds, 1e-3)) is not None
    except TimeoutError as error:
        raise PatternProblem(
            f"the pattern {_short(pattern)} takes more than {LIMIT:g} s on {text[:40]!r}: "
            "write it without repeats inside of repeats"
        ) from error


def _short(pattern: str) -> str:
    return repr(pattern if len(pattern) <= 80 else f"{pattern[:80]} …")
