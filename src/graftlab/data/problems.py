"""Why a row cannot become a conversation."""

from __future__ import annotations

from typing import Any

from graftlab.errors import listed

_SHOWN = 5


class RowProblem(Exception):
    """Why a row cannot become a conversation; caught in `source.py`, shown with file and line."""

    def __init__(self, *problems: str) -> None:
        """The first few are told in full."""
        super().__init__(listed(problems, _SHOWN, "; "))


def kind_of(value: Any) -> str:
    """What a JSON value is, in words."""
    names = {dict: "an object", list: "an array", str: "a string", bool: "a boolean"}
    if value is None:
        return "null"
    return names.get(type(value), "a number")
