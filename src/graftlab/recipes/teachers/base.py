"""What every teacher is: texts in, one rewrite (or a reason why not) for each out.

rewrite(["The tenebrous ...", "..."], "neutral")  ->  ["The dark ...", Miss("no answer", ...)]
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from graftlab.errors import ConfigError, GraftlabError, did_you_mean
from graftlab.registry import group
from graftlab.text.frame import Frame, load_frame

VARIATIONS = ("neutral", "dropout", "abstract")
"""The three inputs that each styled text gets."""


class TeacherError(GraftlabError):
    """A teacher that cannot go on at all: refused, unreachable, or out of money."""


@dataclass(frozen=True, slots=True)
class Miss:
    """A text that the teacher could not rewrite, and why."""

    reason: str
    """A short stable phrase, to be counted."""
    detail: str = ""


class Teacher(Protocol):
    """Rewrites texts as one of VARIATIONS."""

    def rewrite(self, texts: Sequence[str], variation: str) -> list[str | Miss]:
        """One rewrite or Miss per text, in order. Raises TeacherError when it cannot go on."""
        ...


@group("teacher")
@dataclass(kw_only=True, slots=True)
class TeacherSpec(ABC):
    """Base of the choices of `teacher`."""

    @abstractmethod
    def check(self) -> None:
        """Raise ConfigError for what is missing, without loading or asking anything."""

    @abstractmethod
    def build(self) -> Teacher:
        """The teacher that this describes. Raises ConfigError when it cannot be had."""


def default_prompts() -> dict[str, str]:
    """The shipped prompt frame of each variation."""
    return {name: f"teacher-{name}" for name in VARIATIONS}


@dataclass(kw_only=True, slots=True)
class PromptedTeacher(TeacherSpec):
    """What teachers that are language models share: a prompt frame for each variation."""

    prompts: dict[str, str] = field(default_factory=default_prompts)
    """Variation -> prompt frame (a YAML file, or the name of a shipped one)."""

    def frames(self) -> dict[str, Frame]:
        """The frames, read. Raises ConfigError for a missing or broken one."""
        return load_frames("persona.teacher.prompts", self.prompts)


def load_frames(key: str, names: dict[str, str]) -> dict[str, Frame]:
    """Variation -> its frame. Raises ConfigError naming `key` for an unknown variation or file."""
    for name in names:
        if name not in VARIATIONS:
            hint = did_you_mean(name, VARIATIONS)
            raise ConfigError(f"{key}.{name}: variations are {', '.join(VARIATIONS)}.{hint}")
    frames = {}
    for name, frame in names.items():
        try:
            frames[name] = load_frame(frame)
        except ConfigError as error:
            raise ConfigError(f"{key}.{name}: {error}") from None
    return frames
