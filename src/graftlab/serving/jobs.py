"""A request as the decode loop answers it: a turn for each choice, and what is told of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from graftlab.data.check import problems_in, reserved_pattern
from graftlab.data.system import with_system
from graftlab.errors import GraftlabError
from graftlab.generation.decode import make_turn
from graftlab.generation.draw import Sampler
from graftlab.generation.form import form_for
from graftlab.generation.turn import TextStream
from graftlab.serving.requests import RequestError

if TYPE_CHECKING:
    from graftlab.generation.turn import Turn
    from graftlab.models.base import Base
    from graftlab.serving.models import ServedModel
    from graftlab.serving.requests import ChatRequest
    from graftlab.text.tokenizer import Tokenizer
    from graftlab.types import Conversation


@dataclass(frozen=True, slots=True)
class Piece:
    """A choice goes on with this text."""

    index: int
    text: str


@dataclass(frozen=True, slots=True)
class Ended:
    """A choice is whole."""

    index: int
    reason: str
    """`stop`, or `length` where the limit or the end of the context cut it."""
    num_tokens: int


@dataclass(frozen=True, slots=True)
class Failed:
    """No more will come."""

    error: Exception


Event = Piece | Ended | Failed
Tell = Callable[[Event], None]
"""Called in the model's thread, or in the one that closes it."""


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """One request for one model."""

    model: ServedModel
    tell: Tell
    turns: list[Turn] = field(default_factory=list)

    @property
    def num_prompt(self) -> int:
        return len(self.turns[0].prompt)

    def cancel(self) -> None:
        """Nobody waits for it any more: what it has of a batch is given up after this token."""
        for turn in self.turns:
            turn.cancel()

    @property
    def cancelled(self) -> bool:
        return all(turn.cancelled for turn in self.turns)


def make_job(request: ChatRequest, model: ServedModel, base: Base, tell: Tell) -> Job:
    """The request as turns that can be decoded.

    Raises RequestError for what this model cannot be asked: a conversation that its template
    refuses or that fills its context, tools that it does not show, a schema without a reply.
    """
    conversation = _checked(request.conversation, model)
    job = Job(model, tell)
    try:
        for index in range(request.num_choices):
            wanted = replace(request.generation, seed=request.generation.seed + index)
            choice = _Choice(index, model.tokenizer, request.stops, tell)
            choice.turn = make_turn(
                base,
                model.tokenizer,
                conversation,
                Sampler(wanted, base.device),
                on_token=choice.put,
            )
            job.turns.append(choice.turn)
        _require_room(request, conversation, job, base)
    except GraftlabError as error:
        raise RequestError(_in_their_words(str(error))) from error
    return job


class StopText:
    """Hands a text on until one of the stops comes, which it keeps to itself."""

    def __init__(self, stops: Sequence[str], on_text: Callable[[str], None]) -> None:
        self.found = False
        self._stops, self._on_text = stops, on_text
        self._held = ""  # it may be the beginning of a stop

    def put(self, piece: str) -> None:
        """The text goes on."""
        text = self._held + piece
        places = [place for stop in self._stops if (place := text.find(stop)) >= 0]
        if places:
            self.found = True
        size = min(places) if places else len(text) - self._num_begun(text)
        self._held = "" if self.found else text[size:]
        if size:
            self._on_text(text[:size])

    def end(self) -> None:
        """Nothing follows: what was held back is no stop."""
        if self._held:
            self._on_text(self._held)

    def _num_begun(self, text: str) -> int:
        """Letters at the end of `text` with which a stop begins, the most."""
        sizes = (
            size
            for stop in self._stops
            for size in range(1, min(len(stop), len(text) + 1))
            if text.endswith(stop[:size])
        )
        return max(sizes, default=0)


class _Choice:
    """One reply as it grows."""

    turn: Turn

    def __init__(self, index: int, tokenizer: Tokenizer, stops: Sequence[str], tell: Tell) -> None:
        self._index, self._tell = index, tell
        self._stops = StopText(stops, lambda text: tell(Piece(index, text)))
        self._stream = TextStream(tokenizer, self._stops.put)

    def put(self, token: int) -> None:
        """One more token; tells of the text, and of the end."""
        if self.turn.cancelled:
            return
        self._stream.put(token)
        if self._stops.found:
            self.turn.cancel()
        if not self.turn.open:
            stopped = self._stops.found or self.turn.stopped
            if not self._stops.found:
                self._stops.end()
            reason = "stop" if stopped else "length"
            self._tell(Ended(self._index, reason, len(self.turn.ids)))


def _checked(conversation: Conversation, model: ServedModel) -> Conversation:
    """With the system turn of training where it has none. Raises RequestError."""
    problems = problems_in(
        conversation.messages,
        reserved=reserved_pattern(model.tokenizer.reserved),
        last="user",
        tools=conversation.tools,
    )
    if problems:
        raise RequestError(f"{'; '.join(problems).rstrip('.')}.", param="messages")
    return replace(conversation, messages=with_system(conversation.messages, **model.system))


def _require_room(request: ChatRequest, conversation: Conversation, job: Job, base: Base) -> None:
    tokenizer, limit = job.model.tokenizer, base.max_length
    if limit is not None and job.num_prompt >= limit:
        raise RequestError(
            f"the conversation has {job.num_prompt} tokens, and {base.name} has room for {limit} "
            "together with the reply.",
            param="messages",
            code="context_length_exceeded",
        )
    if conversation.tools:
        bare = tokenizer.render(conversation.messages, generation_prompt=True)
        if bare == job.turns[0].prompt:
            raise RequestError("the chat template of this model shows no tools.", param="tools")
    form = form_for(request.generation, conversation, tokenizer)
    if form is not None:
        room = request.generation.max_new_tokens
        form.check(room if limit is None else min(room, limit - job.num_prompt))


def _in_their_words(text: str) -> str:
    """A message of ours with the names of the request."""
    text = text.removeprefix("messages:0: ").replace("generation.schema", "response_format")
    return text.replace("generation.max_new_tokens", "max_tokens")
