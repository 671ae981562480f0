"""A conversation with a model over several turns: what was said, who answers, what is read."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftlab.data.check import problems_in, reserved_pattern
from graftlab.data.system import with_system
from graftlab.errors import ConfigError, ModelError, require_range
from graftlab.files.ownership import writing_to
from graftlab.files.writing import write_atomic
from graftlab.generation.decode import Reply, make_reply, make_turn
from graftlab.generation.draw import Sampler
from graftlab.generation.kept import KeptContext
from graftlab.generation.turn import TextStream
from graftlab.types import Conversation, Message

if TYPE_CHECKING:
    from graftlab.adapters.base import Adapter
    from graftlab.generation.answering import Asked
    from graftlab.generation.turn import Turn
    from graftlab.text.frame import Frame

Listen = Callable[[Callable[[], None]], AbstractContextManager[None]]
"""Given what stops a reply, the context in which something may do so."""


@dataclass(frozen=True, slots=True)
class ChatReply:
    """What was answered, and what it took."""

    reply: Reply
    num_prompt: int
    """Tokens of the whole conversation before the reply."""
    num_read: int
    """Those that were read for this reply; the others were known from the turns before."""
    ending: str
    """Why it ended, in words."""

    @property
    def caption(self) -> str:
        """'42 tokens, 31 tokens/s, stopped; 18 of 120 tokens read' in one line."""
        reply = self.reply
        line = f"{reply.num_tokens} tokens, {reply.tokens_per_second:.0f} tokens/s, {self.ending}"
        if reply.valid is not None:
            line += ", follows the schema" if reply.valid else ", does not follow the schema"
        return f"{line}; {self.num_read} of {self.num_prompt} prompt tokens read"


@dataclass(frozen=True, slots=True)
class Exchange:
    """A question and its answer."""

    question: Message
    answer: Message
    seed: int


class Chat:
    """One conversation; the adapter, where there is one, answers at `scale`.

    What a voice has read stays in a KV cache of its own, and the next prompt is read from where it
    differs. Every reply draws from the seed behind the last one's, so that a question that is
    asked again may be answered otherwise.
    """

    def __init__(
        self,
        asked: Asked,
        adapter: Adapter | None,
        *,
        scale: float = 1.0,
        system: str | None = None,
        instruction: str | None = None,
        frame: Frame | None = None,
    ) -> None:
        """`system` and `instruction` are as in `data.system`; `frame` goes around every question
        and brings its own system turn.
        """
        self.exchanges: list[Exchange] = []
        self.scale = scale
        self._system = frame.system.strip() if frame is not None else system
        self._instruction, self._frame = instruction, frame
        self._asked, self._adapter = asked, adapter
        self._num_asked = 0
        self._reserved = reserved_pattern(asked.tokenizer.reserved)
        self._base_context = KeptContext(asked.base)
        self._adapter_context = KeptContext(asked.base)
        self._saved: set[Path] = set()

    def ask(
        self,
        text: str,
        *,
        on_text: Callable[[str], None] = lambda piece: None,
        listen: Listen = lambda stop: nullcontext(),
    ) -> ChatReply:
        """The reply to one more question, also one that was stopped, becomes part of the chat.

        Raises ConfigError for a text that cannot be asked and ModelError where the conversation
        fills the model's context; the conversation is then as it was.
        """
        question = Message("user", text if self._frame is None else self._frame.user_turn(text))
        number = 2 * len(self.exchanges) + 1
        problems = problems_in((question,), reserved=self._reserved, last="user", first=number)
        if problems:
            raise ConfigError("; ".join(problems))
        seed = self._asked.generation.seed + self._num_asked
        told = self._answer(question, seed, on_text, listen, by_base=self._adapter is None)
        self._num_asked += 1
        if told.reply.num_tokens:
            answer = Message("assistant", told.reply.text)
            self.exchanges.append(Exchange(question, answer, seed))
        return told

    def ask_base(
        self,
        *,
        on_text: Callable[[str], None] = lambda piece: None,
        listen: Listen = lambda stop: nullcontext(),
    ) -> ChatReply:
        """What the base says to the last question, to compare; the conversation stays as it is.

        Raises ConfigError without an adapter or a question.
        """
        if self._adapter is None:
            raise ConfigError("it is the base that answers: there is no adapter to compare with.")
        last = self._last("nothing was asked yet.")
        exchanges, self.exchanges = self.exchanges, self.exchanges[:-1]
        try:
            return self._answer(last.question, last.seed, on_text, listen, by_base=True)
        finally:
            self.exchanges = exchanges

    def undo(self) -> str:
        """Take the last question and its answer back. Raises ConfigError where there is none."""
        last = self._last("there is nothing to take back.")
        del self.exchanges[-1]
        return last.question.content

    def reset(self) -> None:
        """Begin anew, with the system turn and the strength as they are."""
        self.exchanges.clear()

    @property
    def system(self) -> str | None:
        """The system turn as the model reads it; None where there is none."""
        first = self._messages()[:1]
        return first[0].content if first and first[0].role == "system" else None

    def set_system(self, text: str) -> None:
        """Another system turn, from now on. Raises ConfigError for one that cannot be."""
        if self._frame is not None:
            raise ConfigError("the frame brings its own system turn: leave frame= out.")
        turns = (Message("system", text), Message("user", "Hi"))
        if problems := problems_in(turns, reserved=self._reserved, last="user", first=0):
            raise ConfigError("; ".join(problems))
        self._system = text

    def set_scale(self, scale: float) -> None:
        """Another strength of the adapter, from now on. Raises ConfigError."""
        if self._adapter is None:
            raise ConfigError("there is no adapter whose strength could be set.")
        require_range("scale", scale, least=0)
        if scale != self.scale:
            self.scale = scale
            self._adapter_context = KeptContext(self._asked.base)

    def save(self, file: str) -> Path:
        """Write the conversation as a row of training data; only what this chat has written is
        replaced. Raises ConfigError.
        """
        self._last("nothing was said yet.")
        if "\0" in file:
            raise ConfigError("the name of a file holds no NUL: give another name.")
        row = {"messages": [message.as_dict() for message in self._messages()]}
        with writing_to(file):
            path = Path(os.path.expanduser(file)).absolute()
            if path.exists() and path not in self._saved:
                raise ConfigError(f"{file} is there already: give another name.")
            write_atomic(path, json.dumps(row, ensure_ascii=False) + "\n")
        self._saved.add(path)
        return path

    def _last(self, otherwise: str) -> Exchange:
        if not self.exchanges:
            raise ConfigError(otherwise)
        return self.exchanges[-1]

    def _messages(self, *more: Message) -> tuple[Message, ...]:
        said = [turn for each in self.exchanges for turn in (each.question, each.answer)]
        return with_system((*said, *more), system=self._system, instruction=self._instruction)

    def _answer(
        self,
        question: Message,
        seed: int,
        on_text: Callable[[str], None],
        listen: Listen,
        *,
        by_base: bool,
    ) -> ChatReply:
        asked, start = self._asked, time.perf_counter()
        sampler = Sampler(replace(asked.generation, seed=seed), asked.base.device)
        stream = TextStream(asked.tokenizer, on_text)
        conversation = Conversation(self._messages(question), "chat", len(self.exchanges) + 1)
        turn = make_turn(asked.base, asked.tokenizer, conversation, sampler, on_token=stream.put)
        self._require_room(turn.prompt)
        context = self._base_context if by_base else self._adapter_context
        with self._voice(by_base), asked.autocast(), listen(turn.cancel):
            num_read = context.decode(turn)
        reply = make_reply(turn, stream.text, time.perf_counter() - start)
        return ChatReply(reply, len(turn.prompt), num_read, self._ending(turn))

    def _voice(self, by_base: bool) -> AbstractContextManager[Any]:
        if self._adapter is None:
            return nullcontext()
        return self._adapter.disabled() if by_base else self._adapter.scaled(self.scale)

    def _require_room(self, prompt: Sequence[int]) -> None:
        base, limit = self._asked.base, self._asked.base.max_length
        if limit is not None and len(prompt) >= limit:
            raise ModelError(
                f"the conversation has {len(prompt)} tokens with this question, and {base.name} "
                f"has room for {limit} together with the reply. /undo takes the last question "
                "back, /reset begins anew."
            )

    def _ending(self, turn: Turn) -> str:
        if turn.stopped:
            return "stopped"
        if turn.cancelled:
            return "interrupted"
        most = self._asked.generation.max_new_tokens
        if turn.room < most:
            return f"cut: the context of {self._asked.base.max_length} tokens is full"
        return f"cut at generation.max_new_tokens={most}"
