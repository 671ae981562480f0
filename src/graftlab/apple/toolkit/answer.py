"""Translate, print, run: the toolkit's line as graftlab's, through the ordinary command line."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from graftlab.apple.toolkit.flags import MISSING
from graftlab.apple.toolkit.helps import command_help, overview
from graftlab.apple.toolkit.places import hand_over
from graftlab.apple.toolkit.read import Read, command_of, read
from graftlab.commands import Run
from graftlab.errors import ConfigError
from graftlab.terminal import printable


def answer(arguments: Sequence[str], run: Run) -> int:
    """Answer `graftlab toolkit ARGUMENTS`; returns the exit code.

    Raises GraftlabError for what is wrong with the line, and whatever the command line raises.
    """
    if not arguments or arguments[0] in ("-h", "--help"):
        print(overview())
        return 0
    command = command_of(arguments[0])
    if {"-h", "--help"}.intersection(arguments):
        print(command_help(command))
        return 0
    line = read(arguments)
    words = _words(line)
    for note in line.notes:
        print(printable(note), file=sys.stderr)
    print(printable(shlex.join(["graftlab", *words])), flush=True)
    if line.only_print:
        return 0
    try:
        return run(words, f"graftlab toolkit {command.name}")
    finally:
        _leave(line, words)


def _words(line: Read) -> list[str]:
    """The translation; where it is only printed, also while assets or checkpoints are missing."""
    try:
        return translated(line)
    except ConfigError as error:
        if not line.only_print:
            raise
        line.notes.append(f"To run it, this is missing: {error}")
        line.values[MISSING] = ""
        return translated(line)


def translated(line: Read) -> list[str]:
    """The verb and its words; plain words of the line come last, and win."""
    command, values, said = line.command, line.values, line.said
    words = [word for more in command.more for word in more(values, said)]
    words += command.fixed
    words += [word for flag in command.flags for word in flag.translated(values)]
    words = [word for word in words if word.partition("=")[0] not in said]
    return [command.verb, *words, *line.words]


def _leave(line: Read, words: Sequence[str]) -> None:
    """The toolkit's files where the toolkit leaves them, also of a run that was cut short."""
    folder = line.values.get("checkpoint-dir")
    run = next((word for word in words if word.startswith("hydra.run.dir=")), None)
    if folder is None or run is None:
        return
    linked = hand_over(Path(folder).expanduser(), Path(run.partition("=")[2]).expanduser())
    if linked:
        print(printable(f"toolkit:  {', '.join(map(str, linked))}"))
