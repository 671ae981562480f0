"""What a reply must be: a JSON schema in the vocabulary of one tokenizer."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from graftlab.errors import ConfigError
from graftlab.generation.closing import Closer, GrammarState
from graftlab.generation.sampling import ROW
from graftlab.generation.schema import raise_error, read_schema
from graftlab.generation.vocabulary import vocabulary_of
from graftlab.text.json_schema import grammar, mismatch, require_llguidance

if TYPE_CHECKING:
    from graftlab.generation.sampling import Generation
    from graftlab.generation.vocabulary import Vocabulary
    from graftlab.text.tokenizer import Tokenizer
    from graftlab.types import Conversation

KEPT = 32
"""Schemas whose grammars stay in memory."""


class Form:
    """A schema in a tokenizer's vocabulary, for the guides of all replies. Made by `form_of`."""

    def __init__(self, schema: dict[str, Any], tokenizer: Tokenizer) -> None:
        self.schema = schema
        self.vocabulary: Vocabulary = vocabulary_of(tokenizer)
        writable = {byte for data in self.vocabulary.ids_of for byte in data}
        rules = grammar(schema)
        self.closer = Closer(schema, rules, writable=writable)
        self.matcher: Any = require_llguidance().LLMatcher(self.vocabulary.ll, rules, log_level=0)
        raise_error(self.matcher)
        self.whole = self.end(self.closer.start(), GrammarState(), 2**20)

    @property
    def least(self) -> int:
        """Tokens that the shortest reply takes. Raises ConfigError when no reply can be written."""
        if self.whole is None:
            raise ConfigError(
                "generation.schema: no reply was found that follows it and that this tokenizer can "
                "write. Make patterns and lengths in it simpler."
            )
        return len(self.whole)

    def check(self, budget: int) -> None:
        """Raise ConfigError unless a reply of this form fits into `budget` tokens."""
        if self.least > budget:
            raise ConfigError(
                f"no reply of at most {budget} tokens follows generation.schema: the shortest "
                f"takes {self.least}. Raise generation.max_new_tokens; if that is high enough, "
                "the prompt leaves no more room in the model's context."
            )

    def fits(self, text: str) -> bool:
        """Whether `text` follows the schema, as the package jsonschema sees it."""
        return mismatch(text, self.schema) is None

    def end(self, bytewise: Any, place: GrammarState, left: int) -> list[int] | None:
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
        # After a tool's result it is still the last question that is answered.
        questions = (turn for turn in reversed(conversation.messages) if turn.role == "user")
        asked = next(questions).response_format
        try:
            schema = None if asked is None else read_schema(asked["json_schema"]["schema"])
        except ConfigError as error:
            raise ConfigError(f"{conversation.where}: response_format: {error}") from None
    return None if schema is None else form_of(schema, tokenizer)


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
