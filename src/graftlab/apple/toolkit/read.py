"""A command line in the toolkit's words into values; every mistake in one message."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from graftlab.apple.toolkit.flags import WANTED, Command, Flag, Values
from graftlab.apple.toolkit.table import COMMANDS
from graftlab.errors import ConfigError, did_you_mean


@dataclass(slots=True)
class Read:
    """What was said to one of the words."""

    command: Command
    values: Values = field(default_factory=dict)
    words: list[str] = field(default_factory=list)
    """key=value pairs in graftlab's own words, which win."""
    notes: list[str] = field(default_factory=list)
    only_print: bool = False

    @property
    def said(self) -> frozenset[str]:
        """The keys that plain words set."""
        return frozenset(word.partition("=")[0] for word in self.words)


def command_of(word: str) -> Command:
    """The command meant by `train-adapter`, `train_adapter` or `examples.train_adapter`."""
    name = word.rpartition(".")[2].replace("_", "-")
    if name not in COMMANDS:
        hint = did_you_mean(name, COMMANDS) or f" They are: {', '.join(COMMANDS)}."
        raise ConfigError(f"`{word}` is not a word of the toolkit.{hint}")
    return COMMANDS[name]


def read(arguments: Sequence[str]) -> Read:
    """Read a word and its flags, defaults filled in. Raises ConfigError naming every mistake."""
    found = Read(command_of(arguments[0]))
    flags = {flag.name: flag for flag in found.command.flags}
    problems: list[str] = []
    rest = deque(arguments[1:])
    while rest:
        argument = rest.popleft()
        name, gap, text = argument.removeprefix("--").partition("=")
        name = name.replace("_", "-")
        if not argument.startswith("--"):
            problems += _word(argument, found)
        elif name == "dry-run":
            found.only_print = True
        elif (flag := flags.get(name)) is None:
            problems.append(f"--{name} is not a flag of {found.command.name}." + _near(name, flags))
            if not gap and rest and not rest[0].startswith("--") and "=" not in rest[0]:
                rest.popleft()  # its value, about which there is nothing to say
        elif gap or flag.switch:
            problems += _take(flag, text, found)
        else:
            problems += _take(flag, _value(rest), found)
    required = [flag for flag in found.command.flags if flag.required]
    problems += [f"{flag.shown} is required." for flag in required if flag.name not in found.values]
    if problems:
        raise ConfigError("\n".join([*problems, f"All flags: {found.command.name} --help"]))
    for flag in found.command.flags:
        if flag.default is not None:
            found.values.setdefault(flag.name, flag.default)
    return found


def _value(rest: deque[str]) -> str | None:
    """The value that follows a flag; None where the next word is a flag, or there is none."""
    return rest.popleft() if rest and not rest[0].startswith("--") else None


def _word(argument: str, found: Read) -> list[str]:
    key, gap, _ = argument.partition("=")
    if not gap or not key:
        return [f"`{argument}` is neither a flag nor key=value."]
    found.words.append(argument)
    return []


def _take(flag: Flag, given: str | None, found: Read) -> list[str]:
    """Keep the value of a flag; returns what is wrong with it."""
    if flag.switch and given:
        return [f"--{flag.name} takes no value."]
    if given is None:
        return [f"--{flag.name} needs a value: {flag.shown}."]
    try:
        found.values[flag.name] = given if flag.switch else flag.read(given)
    except ValueError:
        return [f"--{flag.name} {given}: it must be {WANTED[flag.read]}."]
    if flag.note:
        found.notes.append(f"--{flag.name} sets nothing: {flag.note}.")
    return []


def _near(name: str, flags: dict[str, Flag]) -> str:
    hint = did_you_mean(f"--{name}", [f"--{flag}" for flag in [*flags, "dry-run"]])
    return hint or f" Its flags: {', '.join(f'--{flag}' for flag in flags)}."
