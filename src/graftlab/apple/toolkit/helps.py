"""`--help` and completion of the toolkit's words: every flag with the key it is here."""

from __future__ import annotations

from graftlab.apple.toolkit.flags import Command
from graftlab.apple.toolkit.table import COMMANDS
from graftlab.columns import table

SUMMARY = "The words of Apple's adapter toolkit, said in graftlab's and run."
PLAIN = {
    "--dry-run": "print the graftlab line, and run nothing",
    "KEY=VALUE": "a word of graftlab's own; it wins over what a flag says",
    "-h, --help": "this text",
}


def overview() -> str:
    """What `graftlab toolkit --help` says: all words and flags, each with its keys."""
    lines = [f"graftlab toolkit: {SUMMARY}", ""]
    lines += ["Usage: graftlab toolkit WORD --flag VALUE ... [key=value ...]"]
    for command in COMMANDS.values():
        lines += ["", f"{command.name}: {command.meaning} (graftlab {command.verb})"]
        lines += table({flag.shown: flag.target for flag in command.flags})
    lines += ["", "With each word", *table(PLAIN)]
    return "\n".join([*lines, "", "More: graftlab toolkit WORD --help"])


def command_help(command: Command) -> str:
    """What `graftlab toolkit WORD --help` says."""
    call = f"graftlab toolkit {command.name}"
    needed = " ".join(flag.shown for flag in command.flags if flag.required)
    lines = [f"{call}: {command.meaning}, as graftlab {command.verb} does it", ""]
    lines += [f"Usage: {call} {needed} [--flag VALUE ...] [key=value ...]"]
    lines += ["", "Flags, with the keys that they set (hyphens or underscores)"]
    rows = {}
    for flag in command.flags:
        default = f" (default {flag.default})" if flag.default is not None else ""
        rows[flag.shown] = f"{flag.target}: {flag.note or flag.meaning}{default}"
    lines += table(rows)
    if command.fixed:
        lines += ["", "Always: " + " ".join(command.fixed)]
    return "\n".join([*lines, "", "And", *table(PLAIN)])


def completions(typed: str) -> list[str]:
    """What may stand for the last word of `typed`, what follows `graftlab toolkit `."""
    *before, last = typed.split(" ")
    before = [word for word in before if word]
    if not before:
        return [name for name in COMMANDS if name.startswith(last)]
    command = COMMANDS.get(before[0].replace("_", "-"))
    flags = [*(flag.name for flag in command.flags), "dry-run", "help"] if command else []
    return [f"--{name}" for name in flags if f"--{name}".startswith(last.replace("_", "-"))]
