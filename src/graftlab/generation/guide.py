"""Guided generation: which tokens may come next, so that the reply follows a JSON schema and ends.

llguidance says which tokens the schema allows. That alone does not make a reply whole: a model may
write a string until its tokens are used up. So a guide always holds an *end*, tokens that make the
reply whole from where it is, and takes no token after which no end would fit any more:

    budget 12   {"name": "Ann Lee of the |        end `"}`: 1 token, anything may come
    budget 2    {"name": "Ann Lee of the old |    only what leaves room for `"}`
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from graftlab.errors import ConfigError
from graftlab.generation.closing import Closer, Place
from graftlab.generation.sampling import ROW
from graftlab.generation.schema import grammar, mismatch, read_schema
from graftlab.generation.vocabulary import require_llguidance, vocabulary_of

if TYPE_CHECKING:
    from graftlab.generation.sampling import Generation
    from graftlab.generation.vocabulary import Vocabulary
    from graftlab.text.tokenizer import Tokenizer
    from graftlab.types import Conversation

DRAWS = 4
"""Tokens that may be refused in one place before the end is written instead."""
KEPT = 32
"""Schemas whose grammars stay in memory."""


@dataclass(slots=True)
class _Step:
    """What was true before a token was taken."""

    written: int  # bytes of the token
    end: list[int]
    place: Place


@dataclass(slots=True)
class SchemaGuide:
    """One reply under one schema within `budget` tokens: the guide that the decode loop asks.

    Made by `Form.guide`. A token that `mask` allows may still be refused by `accept`, once it is
    clear that no end fits behind it: whoever draws asks for a new mask then, and draws anew.
    """

    form: Form
    budget: int
    width: int
    """Length of the masks: the logits of a model may be wider than its vocabulary."""
    matcher: Any
    bytewise: Any
    """The same reply for the search of ends, in a vocabulary of bytes."""
    end: list[int]
    """Tokens that make the reply whole from here; they fit the budget."""
    place: Place = field(default_factory=Place)
    steps: list[_Step] = field(default_factory=list)
    refused: list[int] = field(default_factory=list)
    """Tokens that were drawn here and leave no room for an end."""
    stopped: bool = False

    @property
    def done(self) -> bool:
        """The reply is whole and nothing may follow."""
        return self.stopped or bool(self.matcher.is_stopped())

    def mask(self) -> Tensor:
        """Ids that may come next, (width,) bool on the CPU; at least one, unless `done`."""
        if len(self.refused) >= DRAWS:
            return self._only(self.end[:1] or self.form.vocabulary.stop_ids)
        forced = self.matcher.compute_ff_bytes()
        allowed = self._by_text(forced) if forced else self._by_schema()
        allowed[self.refused] = False
        return allowed if allowed.any() else self._only(self.end[:1])

    def accept(self, token: int) -> bool:
        """The reply goes on with `token`, which `mask` allows; False where no end would fit."""
        written = self.form.vocabulary.bytes[token] or b""
        before = _Step(len(written), self.end, self.place)
        if token in self.form.vocabulary.stop_ids:
            assert self.matcher.is_accepting(), "a stop token in the middle of a reply"
            self.stopped = True
        else:
            end = self._end_after(token, written)
            if end is None:
                self.refused.append(token)
                return False
            self._read(token, written)
            self.end = end
        self.steps.append(before)
        self.refused = []
        return True

    def rollback(self, count: int) -> None:
        """Take back the last `count` tokens that were accepted."""
        for _ in range(count):
            step = self.steps.pop()
            if step.written:
                self.matcher.rollback(1)
                self.bytewise.rollback(step.written)
            self.end, self.place, self.stopped = step.end, step.place, False
        self.refused = []

    def _by_schema(self) -> Tensor:
        """llguidance's mask, which is right wherever more than one byte may follow."""
        bits = torch.frombuffer(bytearray(self.matcher.compute_bitmask()), dtype=torch.uint8)
        _raise_error(self.matcher)
        places = torch.arange(8, dtype=torch.uint8)
        allowed = torch.zeros(self.width, dtype=torch.bool)
        size = min(self.width, len(self.form.vocabulary.bytes))
        allowed[:size] = ((bits[:, None] >> places) & 1).flatten()[:size].bool()
        return allowed

    def _by_text(self, forced: bytes) -> Tensor:
        """All spellings of a text that must follow, with whatever may come behind it.

        llguidance allows the tokenizer's own spelling alone there; the model may say others.
        """
        vocabulary = self.form.vocabulary
        further = [i for i in vocabulary.beyond(forced) if self.matcher.validate_tokens([i])]
        return self._only([*vocabulary.begun(forced), *further])

    def _read(self, token: int, written: bytes) -> None:
        self.place = _behind(self.place, written)
        taken = self.matcher.consume_token(token) and self.bytewise.consume_tokens(list(written))
        assert taken, f"token {token} ({written!r}) is not one that the mask allowed"

    def _end_after(self, token: int, written: bytes) -> list[int] | None:
        """An end that fits behind `token`; None when there is none."""
        left = self.budget - len(self.steps) - 1
        if self.end[:1] == [token]:
            return self.end[1:]
        ahead = self.bytewise.deep_copy()
        if not ahead.consume_tokens(list(written)):
            return None
        spell = self.form.vocabulary.spell
        # What ended the reply before does so still, or from somewhere in it on: after one more
        # letter of a string, after the quote that closes it. Only else is an end searched for.
        old = self.form.text(self.end)
        for start in range(len(old), -1, -1):
            if self.form.closer.ends(ahead, old[start:]):
                ids = spell(old[start:])
                if ids is not None and len(ids) <= left:
                    return ids
                break
        return self.form.end(ahead, _behind(self.place, written), left)

    def _only(self, ids: Sequence[int]) -> Tensor:
        allowed = torch.zeros(self.width, dtype=torch.bool)
        allowed[list(ids)] = True
        return allowed


class Form:
    """A schema in a tokenizer's vocabulary: makes a guide for each reply. Made by `form_of`."""

    def __init__(self, schema: dict[str, Any], tokenizer: Tokenizer) -> None:
        self.schema = schema
        self.vocabulary: Vocabulary = vocabulary_of(tokenizer)
        writable = {byte for data in self.vocabulary.ids_of for byte in data}
        rules = grammar(schema)
        self.closer = Closer(schema, rules, writable=writable)
        self._matcher = require_llguidance().LLMatcher(self.vocabulary.ll, rules, log_level=0)
        _raise_error(self._matcher)
        self._whole = self.end(self.closer.start(), Place(), 2**20)

    @property
    def least(self) -> int:
        """Tokens that the shortest reply takes. Raises ConfigError when no reply can be written."""
        if self._whole is None:
            raise ConfigError(
                "generation.schema: no reply was found that follows it and that this tokenizer can "
                "write. Make patterns and lengths in it simpler."
            )
        return len(self._whole)

    def check(self, budget: int) -> None:
        """Raise ConfigError unless a reply of this form fits into `budget` tokens."""
        if self.least > budget:
            raise ConfigError(
                f"no reply of at most {budget} tokens follows generation.schema: the shortest "
                f"takes {self.least}. Raise generation.max_new_tokens; if that is high enough, "
                "the prompt leaves no more room in the model's context."
            )

    def guide(self, budget: int, *, width: int) -> SchemaGuide:
        """A guide for one reply of at most `budget` tokens under masks of (width,).

        Raises ConfigError when no reply fits.
        """
        self.check(budget)
        return SchemaGuide(
            form=self,
            budget=budget,
            width=width,
            matcher=self._matcher.deep_copy(),
            bytewise=self.closer.start(),
            end=list(self._whole or ()),
        )

    def fits(self, text: str) -> bool:
        """Whether `text` follows the schema, as the package jsonschema sees it."""
        return mismatch(text, self.schema) is None

    def end(self, bytewise: Any, place: Place, left: int) -> list[int] | None:
        """A short end from `place` in at most `left` tokens; None when none is found."""
        found = self.closer.shortest(bytewise, place, most=left * self.vocabulary.longest)
        ids = None if found is None else self.vocabulary.spell(found)
        return ids if ids is not None and len(ids) <= left else None

    def text(self, ids: Sequence[int]) -> bytes:
        """What these tokens write."""
        return b"".join(self.vocabulary.bytes[index] or b"" for index in ids)


_FORMS: OrderedDict[tuple[str, str], Form] = OrderedDict()


def form_of(schema: dict[str, Any], tokenizer: Tokenizer) -> Form:
    """The form of `schema` for `tokenizer`, built once per process."""
    key = (grammar(schema), tokenizer.fingerprint)
    _FORMS[key] = _FORMS.pop(key) if key in _FORMS else Form(schema, tokenizer)
    while len(_FORMS) > KEPT:
        _FORMS.popitem(last=False)
    return _FORMS[key]


def form_for(
    generation: Generation, conversation: Conversation, tokenizer: Tokenizer
) -> Form | None:
    """The form of the reply to `conversation`; None when it is free.

    Raises ConfigError for a schema that replies cannot be held to.
    """
    schema = generation.schema
    if schema == ROW:
        asked = conversation.messages[-1].response_format
        try:
            schema = None if asked is None else read_schema(asked["json_schema"]["schema"])
        except ConfigError as error:
            raise ConfigError(f"{conversation.where}: response_format: {error}") from None
    return None if schema is None else form_of(schema, tokenizer)


def guide_of(
    generation: Generation, conversation: Conversation, tokenizer: Tokenizer, *, width: int
) -> Callable[[int], SchemaGuide] | None:
    """What makes the guide of a reply, given how many tokens it may have; None when it is free.

    Raises ConfigError for a schema that replies cannot be held to.
    """
    form = form_for(generation, conversation, tokenizer)
    return None if form is None else partial(form.guide, width=width)


def is_valid(guide: object, text: str) -> bool | None:
    """Whether the reply `text` follows the schema of its guide; None where it had none."""
    return guide.form.fits(text) if isinstance(guide, SchemaGuide) else None


def check_forms(
    generation: Generation, conversations: Iterable[Conversation], tokenizer: Tokenizer
) -> None:
    """Raise ConfigError unless every reply can follow its schema within `max_new_tokens`."""
    problems = []
    for conversation in conversations:
        try:
            form = form_for(generation, conversation, tokenizer)
            if form is not None:
                form.check(generation.max_new_tokens)
        except ConfigError as error:
            problems.append(str(error))
    if problems:
        raise ConfigError("\n".join(dict.fromkeys(problems)))


def _raise_error(matcher: Any) -> None:
    """Raise ConfigError when llguidance has given up on a schema, for one too complex."""
    if matcher.is_error():
        raise ConfigError(f"generation.schema: llguidance gives up: {matcher.get_error()}")


def _behind(place: Place, written: bytes) -> Place:
    for byte in written:
        place = place.after(byte)
    return place
