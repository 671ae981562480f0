"""Guided generation: which tokens may come next, so that the reply follows a JSON schema and ends.

llguidance says which tokens the schema allows. That alone does not make a reply whole: a model may
write a string until its tokens are used up. So a guide always holds an *end*, tokens that make the
reply whole from where it is, and takes no token after which no end would fit any more:

    budget 12   {"name": "Ann Lee of the |        end `"}`: 1 token, anything may come
    budget 2    {"name": "Ann Lee of the old |    only what leaves room for `"}`
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from graftlab.generation.closing import GrammarState
from graftlab.generation.form import Form, form_for
from graftlab.generation.schema import raise_error

if TYPE_CHECKING:
    from graftlab.generation.sampling import Generation
    from graftlab.text.tokenizer import Tokenizer
    from graftlab.types import Conversation

DRAWS = 4
"""Tokens that may be refused in one place before the end is written instead."""


@dataclass(slots=True)
class _Step:
    """What was true before a token was taken."""

    written: int  # bytes of the token
    end: list[int]
    place: GrammarState


@dataclass(slots=True)
class SchemaGuide:
    """One reply under one schema within `budget` tokens: the guide that the decode loop asks.

    Made by `make_guide`. A token that `mask` allows may still be refused by `accept`, once it is
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
    place: GrammarState = field(default_factory=GrammarState)
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
        raise_error(self.matcher)
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
        self.place = self.place.behind(written)
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
        after = self.place.behind(written)
        rest = self._rest(ahead, after)
        if rest is not None:
            # An end that was found as the shortest, or the last part of one: no search does better.
            return rest if len(rest) <= left else None
        return self.form.end(ahead, after, left)

    def _rest(self, ahead: Any, after: GrammarState) -> list[int] | None:
        """What of the present end ends the reply behind one more token as well, if any of it does.

        After a letter of a string all of it does; after the quote, what comes behind the quote.
        """
        closer, old = self.form.closer, self.form.text(self.end)
        if self.place.text is not None and after.text is not None and closer.ends(ahead, old):
            return self.end
        allowed = closer.allowed(ahead)
        for start in range(len(old), -1, -1):
            fits = start == len(old) or allowed >> old[start] & 1
            if fits and closer.ends(ahead, old[start:]):
                return self.form.vocabulary.spell(old[start:])
        return None

    def _only(self, ids: Sequence[int]) -> Tensor:
        allowed = torch.zeros(self.width, dtype=torch.bool)
        allowed[list(ids)] = True
        return allowed


def make_guide(form: Form, budget: int, *, width: int) -> SchemaGuide:
    """A guide for one reply of at most `budget` tokens under masks of (width,).

    Raises ConfigError when no reply fits.
    """
    form.check(budget)
    return SchemaGuide(
        form=form,
        budget=budget,
        width=width,
        matcher=form.matcher.deep_copy(),
        bytewise=form.closer.start(),
        end=list(form.whole or ()),
    )


def guide_of(
    generation: Generation, conversation: Conversation, tokenizer: Tokenizer, *, width: int
) -> Callable[[int], SchemaGuide] | None:
    """What makes the guide of a reply, given how many tokens it may have; None when it is free.

    Raises ConfigError for a schema that replies cannot be held to.
    """
    form = form_for(generation, conversation, tokenizer)
    return None if form is None else partial(make_guide, form, width=width)


def is_valid(guide: object, text: str) -> bool | None:
    """Whether the reply `text` follows the schema of its guide; None where it had none."""
    return guide.form.fits(text) if isinstance(guide, SchemaGuide) else None
