"""What tests of the endpoint serve, and what it must say."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graftlab.generation.decode import generate
from graftlab.generation.sampling import Generation
from graftlab.models.base import Base
from graftlab.serving.models import ServedModel
from graftlab.types import Conversation, Message

SYSTEM = "You know music."
LIMIT = 1024


@dataclass(frozen=True)
class Shop:
    """What is served."""

    folders: list[Path]
    base: Base
    models: dict[str, ServedModel]

    def expected(self, name: str, *turns: tuple[str, str], **wanted: Any) -> str:
        """What that model says, asked by itself."""
        model = self.models[name]
        messages = tuple(Message(role, content) for role, content in turns)
        with model.speaking():
            reply = generate(
                self.base, model.tokenizer, Conversation(messages), Generation(**wanted)
            )
        return reply.text
