"""A model of ours as teacher; the task that holds the model hands in how to ask it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from graftlab.errors import ConfigError, require_range
from graftlab.recipes.teachers.base import Miss, PromptedTeacher, Teacher
from graftlab.registry import choice
from graftlab.text.frame import Frame
from graftlab.types import Conversation, Message

Generate = Callable[[list[Conversation]], list[str]]
"""Conversations that end with a user turn -> the answers, in order."""


@choice("local")
@dataclass(kw_only=True, slots=True)
class LocalTeacher(PromptedTeacher):
    """`teacher=local persona.teacher.model=DIR`: a base of ours, with an adapter or without."""

    model: str | None = None
    """Folder of the base model, or `tiny`; null takes the one that `adapter` was trained on."""
    adapter: str | None = None
    """A run folder, adapter folder or checkpoint."""
    max_tokens: int = 1024
    """Longest answer."""
    temperature: float = 0.3
    """How freely the teacher words its answers; 0 takes the likeliest token."""

    def __post_init__(self) -> None:
        require_range("persona.teacher.max_tokens", self.max_tokens, least=1)
        require_range("persona.teacher.temperature", self.temperature, least=0)

    def check(self) -> None:
        if self.model is None and self.adapter is None:
            raise ConfigError(
                "teacher=local needs persona.teacher.model=DIR (or tiny), or "
                "persona.teacher.adapter=RUN."
            )
        self.frames()

    def build(self) -> Teacher:
        """Refused: a model is lent by the task, which calls `taught_by` instead."""
        raise ConfigError("teacher=local needs a loaded model: run it with `graftlab prepare`.")

    def taught_by(self, generate: Generate) -> Teacher:
        """The teacher that asks `generate`. Raises ConfigError for a broken frame."""
        return LocalRewriter(generate, self.frames())


class LocalRewriter:
    """Asks `generate` for each text, put into the frame of its variation."""

    def __init__(self, generate: Generate, frames: dict[str, Frame]) -> None:
        self.generate, self.frames = generate, frames

    def rewrite(self, texts: Sequence[str], variation: str) -> list[str | Miss]:
        frame = self.frames[variation]
        asked = [frame.apply(Conversation((Message("user", text),))) for text in texts]
        answers = self.generate(asked)
        assert len(answers) == len(asked), "one answer for each text"
        return [answer.strip() or Miss("empty answer") for answer in answers]
