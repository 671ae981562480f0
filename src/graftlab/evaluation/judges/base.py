"""What every judge is: a speaker that is shown two replies, and names the better one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from graftlab.errors import ConfigError, require_range
from graftlab.registry import choice, group
from graftlab.text.frame import Frame, load_frame

if TYPE_CHECKING:
    from graftlab.evaluation.speakers import Speaker


@group("judge")
@dataclass(kw_only=True, slots=True)
class JudgeSpec(ABC):
    """Base of the choices of `judge`."""

    @abstractmethod
    def check(self) -> None:
        """Raise ConfigError for what is missing, without loading or asking anything."""

    @abstractmethod
    def opened(self, cache: Path) -> AbstractContextManager[Speaker]:
        """Who is asked, while inside; answers are kept in the folder `cache`."""


@choice("none")
@dataclass(kw_only=True, slots=True)
class NoJudge(JudgeSpec):
    """`judge=none`: no model compares the replies."""

    def check(self) -> None:
        """Nothing can be missing."""

    def opened(self, cache: Path) -> AbstractContextManager[Speaker]:
        """Nobody to ask."""
        raise ConfigError("judge=none judges nothing.")


@dataclass(kw_only=True, slots=True)
class PromptedJudge(JudgeSpec):
    """What judges that are language models share: how they are asked."""

    rubric: str = "judge"
    """What makes a reply better: a frame (a YAML file, or the name of a shipped one) around the
    prompt and both replies; its answer must end with VERDICT: 1, 2 or 0."""
    reference: bool = True
    """Show the judge the prompt's reference, where it has one."""
    max_tokens: int = 512
    """Longest answer; a verdict that is cut off is none."""

    def check_keys(self) -> None:
        """Raise ConfigError for a number that cannot be."""
        require_range("judge.max_tokens", self.max_tokens, least=1)

    def frame(self) -> Frame:
        """The rubric, read. Raises ConfigError for a missing or broken one."""
        try:
            return load_frame(self.rubric)
        except ConfigError as error:
            raise ConfigError(f"judge.rubric: {error}") from None
