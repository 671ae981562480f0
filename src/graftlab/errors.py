"""What graftlab says when something is wrong: one message, the place, and what would be right.

GraftlabError            exit code 2, printed without a traceback
├── ConfigError          a key, a value, an option that does not exist
├── DataError            rows of a data file; carries every problem, not the first
├── ModelError           a model folder, its tokenizer, template or targets
├── LeakError            packed documents see each other: training is refused
├── ResumeError          a checkpoint of another base, other data or another configuration
└── CrashError           a process of the run died; trying again may go well
"""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any


class GraftlabError(Exception):
    """Base of every error that is the user's to mend; the message says how."""


class ConfigError(GraftlabError, ValueError):
    """A configuration key or value that cannot be."""


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a row, and where it stands."""

    where: str
    """`file:line`"""
    reason: str

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}"


class DataError(GraftlabError):
    """Problems in data files: a line `file:line: what is wrong` for each reason there is."""

    def __init__(self, summary: str, rows: Sequence[Problem] = (), *, shown: int = 20) -> None:
        self.summary = summary
        self.rows = list(rows)
        by_reason: dict[str, list[Problem]] = {}
        for problem in rows:
            by_reason.setdefault(problem.reason, []).append(problem)
        groups = list(by_reason.values())
        lines = [summary, *(f"  {_in_a_line(group)}" for group in groups[:shown])]
        if (more := sum(map(len, groups[shown:]))) > 0:
            lines.append(f"  ... and {more} more")
        super().__init__("\n".join(lines))

    @property
    def problems(self) -> list[str]:
        """All of them, a line each."""
        return list(map(str, self.rows))


def _in_a_line(same: Sequence[Problem]) -> str:
    """Problems of one reason: the first in full, and where the others are."""
    first, *others = same
    if not others:
        return str(first)
    return f"{first} ({len(same)} rows: also {listed([one.where for one in others], 3)})"


class ModelError(GraftlabError):
    """A base model, tokenizer or template that cannot be used as configured."""


class LeakError(GraftlabError):
    """Documents of one packed row influence each other."""


class ResumeError(GraftlabError):
    """A checkpoint that does not belong to this run."""


class CrashError(GraftlabError):
    """A process of the run died, for no reason it could tell; what was saved goes on."""


class Interrupted(Exception):
    """A signal ended the run, which can go on with resume=auto; `exit_code` is 128 + signal."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Paused(Exception):
    """The run's observer set it aside after a whole, saved step; resuming goes on."""


class NonFiniteError(GraftlabError):
    """A loss or a gradient is not a number any more; nothing was updated with it."""


def listed(items: Sequence[str], most: int, separator: str = ", ") -> str:
    """`a, b, c and 4 more`: the first of them, and how many others there are."""
    more = len(items) - most
    return separator.join(items[:most]) + (f" and {more} more" if more > 0 else "")


def counted(number: int, noun: str) -> str:
    """`1 row`, `2,000 rows`: nouns whose plural has an s."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """' Did you mean `x`?' for the closest choice, or '' when nothing is close."""
    close = difflib.get_close_matches(name, list(choices), n=1, cutoff=0.6)
    return f" Did you mean `{close[0]}`?" if close else ""


def require_date(key: str, value: str | None) -> None:
    """Raise ConfigError unless `value` is null or a day such as 2026-01-31."""
    try:
        if value is None or date.fromisoformat(value).isoformat() == value:
            return
    except ValueError:
        pass
    raise ConfigError(f"{key}={value} must be a day, as in {key}=2026-01-31.")


def require_choice(key: str, value: object, choices: Sequence[str]) -> None:
    """Raise ConfigError unless `value` is one of `choices`."""
    if value not in choices:
        hint = did_you_mean(str(value), choices)
        raise ConfigError(f"{key}={value} is not one of {', '.join(choices)}.{hint}")


AUTO = "auto"
"""What stands for a number that is found when more is known of the run."""
if TYPE_CHECKING:
    NumberOrAuto = Any
    WholeOrAuto = Any
else:  # what a field takes; a number wherever it is used
    NumberOrAuto = float | int | str
    WholeOrAuto = int | str


def number_or_auto(key: str, value: Any, *, whole: bool = False) -> Any:
    """`value` as a float (an int where `whole`), or AUTO. Raises ConfigError for anything else."""
    if value == AUTO:
        return value
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or (whole and int(value) != value):
        kind = "whole number" if whole else "number"
        raise ConfigError(f"{key}={value} does not fit: {key} must be a {kind} or auto.")
    return int(value) if whole else float(value)


def require_range(
    key: str,
    value: float | None,
    *,
    least: float | None = None,
    most: float | None = None,
    above: float | None = None,
) -> None:
    """Raise ConfigError unless the number (None passes) is finite and in the stated range."""
    if value is None:
        return
    bounds = [
        (least is None or value >= (least or 0), f"at least {least}"),
        (most is None or value <= (most or 0), f"at most {most}"),
        (above is None or value > (above or 0), f"above {above}"),
    ]
    try:
        finite = math.isfinite(value)
    except OverflowError:  # a whole number of over 308 digits
        finite, value = False, math.inf
    if not finite:
        raise ConfigError(f"{key}={value} is out of range: it must be a finite number.")
    if not all(holds for holds, _ in bounds):
        wanted = " and ".join(text for holds, text in bounds if "None" not in text)
        raise ConfigError(f"{key}={value} is out of range: it must be {wanted}.")


def require_finite(value: Any, key: str = "") -> None:
    """Raise ConfigError naming the key of a number in a spec that is NaN or infinite."""
    if isinstance(value, float):
        require_range(key, value)
    inside: Iterable[tuple[Any, Any]] = ()
    if dataclasses.is_dataclass(value):
        inside = ((field.name, getattr(value, field.name)) for field in dataclasses.fields(value))
    elif isinstance(value, Mapping):
        inside = value.items()
    elif isinstance(value, list | tuple):
        inside = enumerate(value)
    for name, part in inside:
        require_finite(part, f"{key}.{name}" if key else str(name))
