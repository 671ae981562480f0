"""Words after `graftlab` that are no verbs: other tools' command lines, said in our words.

A room registers its own from its `plugin.py`; it translates a line into a verb with its words.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from graftlab.registry import load_rooms

Run = Callable[[list[str], str], int]
"""The command line: a verb with its words, and what it is called in messages -> exit code."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One such word."""

    summary: str
    """For `graftlab --help`."""
    answer: Callable[[Sequence[str], Run], int]
    """Answers what follows the word; returns the exit code. Raises GraftlabError."""
    completions: Callable[[str], list[str]]
    """What may stand for the last word of what was typed behind it."""


_COMMANDS: dict[str, Command] = {}


def register_command(name: str, command: Command) -> None:
    """Let `graftlab NAME ...` be answered by `command`."""
    _COMMANDS[name] = command


def commands() -> dict[str, Command]:
    """Name -> command, of all rooms."""
    load_rooms()
    return _COMMANDS
