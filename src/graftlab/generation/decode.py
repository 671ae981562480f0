"""From a conversation to a reply, by one loop for every kind of model and every setting ours."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from graftlab.errors import ModelError
from graftlab.generation.draw import Guide, Sampler
from graftlab.generation.guide import guide_of, is_valid
from graftlab.generation.loop import decode
from graftlab.generation.sampling import Generation
from graftlab.generation.speculative import Draft, Speculated, speculate
from graftlab.generation.turn import TextStream, Turn, text_of
from graftlab.types import Conversation

if TYPE_CHECKING:
    from graftlab.models.base import Base
    from graftlab.text.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Reply:
    """What a model answered."""

    text: str
    num_tokens: int
    """Tokens drawn, the stop token included."""
    stopped: bool
    """The model ended its turn; otherwise it ran into max_new_tokens or the end of its context."""
    seconds: float
    """Reading the prompt included; of several, from when the first was begun."""
    speculated: Speculated | None = None
    """Rounds, proposed and accepted tokens, where a draft helped."""
    valid: bool | None = None
    """Whether it follows its schema, as the package jsonschema sees it; None without a schema."""

    @property
    def tokens_per_second(self) -> float:
        return self.num_tokens / max(self.seconds, 1e-9)


def generate(
    base: Base,
    tokenizer: Tokenizer,
    conversation: Conversation,
    generation: Generation,
    *,
    on_text: Callable[[str], None] | None = None,
    guided: Callable[[int], Guide] | None = None,
    draft: Draft | None = None,
) -> Reply:
    """The assistant's next turn, by the base with whatever adapter is on at the moment.

    `on_text` receives the text as it grows: the pieces joined are `Reply.text`, and none holds half
    a character. `guided` makes, for a reply of so many tokens, what says which may follow; left
    out, `generation.schema` says it, if there is one. `draft` proposes tokens, which saves time: a
    greedy reply is the same, a drawn one another of the same distribution. The draw has its own
    random stream, so training does not notice it; a reply depends on the arguments alone. Raises
    ModelError when the prompt leaves no room in the model's context, ConfigError when no reply that
    follows the schema fits; where less than `max_new_tokens` is left, it ends with the context.
    """
    start = time.perf_counter()
    stream = TextStream(tokenizer, on_text) if on_text is not None else None
    sampler = Sampler(generation, base.device)
    on_token = stream.put if stream is not None else None
    turn = make_turn(base, tokenizer, conversation, sampler, guided=guided, on_token=on_token)
    speculated = None
    if draft is not None:
        speculated = speculate(base, turn, draft)
    else:
        decode(base, [turn])
    text = stream.text if stream is not None else text_of(tokenizer, turn.ids)
    return make_reply(turn, text, time.perf_counter() - start, speculated)


def generate_batch(
    base: Base,
    tokenizer: Tokenizer,
    conversations: Sequence[Conversation],
    generation: Generation,
    *,
    batch: int | None = None,
    guided: Callable[[int], Guide] | None = None,
    on_reply: Callable[[int, Reply], None] = lambda index, reply: None,
) -> list[Reply]:
    """What `generate` says to each conversation, at most `batch` of them in one forward pass.

    `on_reply` has each with the conversation's place as soon as it is whole. A reply is the one
    that the conversation gets alone, up to rounding: a matrix product of more rows may sum in
    another order. Raises ModelError like `generate`; the replies before it are whole.
    """
    start = time.perf_counter()
    sampler = Sampler(generation, base.device)
    turns = [
        make_turn(base, tokenizer, conversation, sampler, guided=guided)
        for conversation in conversations
    ]
    places = {id(turn): place for place, turn in enumerate(turns)}
    replies: dict[int, Reply] = {}

    def end(turn: Turn) -> None:
        place, seconds = places[id(turn)], time.perf_counter() - start
        replies[place] = make_reply(turn, text_of(tokenizer, turn.ids), seconds)
        on_reply(place, replies[place])

    decode(base, turns, batch=batch, on_end=end)
    return [replies[place] for place in range(len(turns))]


def make_reply(
    turn: Turn, text: str, seconds: float, speculated: Speculated | None = None
) -> Reply:
    """What became of a turn whose ids write `text`."""
    valid = is_valid(turn.guide, text)
    return Reply(text, len(turn.ids), turn.stopped, seconds, speculated, valid)


def make_turn(
    base: Base,
    tokenizer: Tokenizer,
    conversation: Conversation,
    sampler: Sampler,
    *,
    guided: Callable[[int], Guide] | None = None,
    on_token: Callable[[int], None] | None = None,
) -> Turn:
    """The reply to a conversation, before its first token; arguments as those of `generate`.

    Raises ModelError where the template refuses it, ConfigError for a schema that cannot be held.
    """
    if guided is None:
        guided = guide_of(sampler.generation, conversation, tokenizer, width=base.vocab_size)
    try:
        ids = tokenizer.render(
            conversation.messages, tools=conversation.tools, generation_prompt=True
        )
    except ModelError as error:
        raise ModelError(f"{conversation.where}: {error}") from error
    return Turn(
        ids,
        sampler,
        where=conversation.where,
        stop_ids=frozenset(tokenizer.stop_ids),
        guided=guided,
        on_token=on_token,
    )
