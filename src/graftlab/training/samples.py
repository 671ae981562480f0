"""Replies to held-out prompts by base and adapter: `samples.md`, the W&B table, the last screen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftlab.errors import GraftlabError
from graftlab.files.writing import write_atomic
from graftlab.generation.decode import generate
from graftlab.generation.repetition import repetition

if TYPE_CHECKING:
    from graftlab.adapters.base import Adapter
    from graftlab.generation.sampling import Generation
    from graftlab.text.tokenizer import Tokenizer
    from graftlab.types import Conversation

Sample = dict[str, Any]


@dataclass(slots=True)
class Replies:
    """How replies are drawn: each inside `context()`; the base answers each prompt only once."""

    context: Callable[[], AbstractContextManager[Any]]
    base: dict[int, str] = field(default_factory=dict)
    """The base's replies by prompt; books of the same prompts and generation may share them."""


class SampleBook:
    """Draws and keeps the samples of a run; the base answers each prompt only once."""

    def __init__(
        self,
        adapter: Adapter,
        tokenizer: Tokenizer,
        conversations: Sequence[Conversation],
        *,
        generation: Generation,
        replies: Replies,
    ) -> None:
        """`conversations` are whole; their last answer is the expected one."""
        self.adapter, self.tokenizer, self.generation = adapter, tokenizer, generation
        self.conversations, self.replies = list(conversations), replies
        self.rows: list[Sample] = []
        self.on_reply: Callable[[int, int], None] = lambda done, total: None
        """Told of every reply: how many there are, out of how many that are drawn together."""

    def draw(self, step: int) -> list[tuple[float, float]]:
        """Sample every prompt after `step` steps; how much base and adapter repeat themselves.

        One pair (0 to 1) for each prompt.
        """
        missing = [at for at in range(len(self.conversations)) if at not in self.replies.base]
        total = len(missing) + len(self.conversations)
        with self.adapter.base.answering():
            with self.adapter.disabled():
                for done, index in enumerate(missing, start=1):
                    self.replies.base[index] = self._reply(self.conversations[index])
                    self.on_reply(done, total)
            said = []
            for conversation in self.conversations:
                said.append(self._reply(conversation))
                self.on_reply(len(missing) + len(said), total)
        repeated = []
        for index, (conversation, reply) in enumerate(zip(self.conversations, said, strict=True)):
            repeated.append((repetition(self.replies.base[index]), repetition(reply)))
            question = conversation.without_last_answer().messages
            self.rows.append(
                {
                    "step": step,
                    "prompt": question[-1].content,
                    "base": self.replies.base[index],
                    "adapter": reply,
                    "expected": conversation.expected or "",
                }
            )
        return repeated

    def _reply(self, conversation: Conversation) -> str:
        question = conversation.without_last_answer()
        try:
            with self.replies.context():
                return generate(self.adapter.base, self.tokenizer, question, self.generation).text
        except GraftlabError as error:  # a prompt that fills the context ends no training run
            return f"(no reply: {error})"

    def last(self) -> list[Sample]:
        """The samples of the latest step drawn."""
        return self.rows[-len(self.conversations) :] if self.rows else []

    def write(self, path: Path) -> None:
        """All samples as Markdown, newest first."""
        parts = ["# Samples\n"]
        for row in reversed(self.rows):
            parts.append(f"## Step {row['step']}\n")
            for who in ("prompt", "base", "adapter", "expected"):
                quoted = "\n".join(f"> {line}" for line in str(row[who]).splitlines())
                parts.append(f"**{who}**\n\n{quoted}\n")
        write_atomic(path, "\n".join(parts))
