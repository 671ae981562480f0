"""One reply in the making: the tokens it has, how many may follow, and its text as it grows."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

from graftlab.errors import ModelError

if TYPE_CHECKING:
    from graftlab.generation.draw import Guide, Sampler
    from graftlab.text.tokenizer import Tokenizer


class Turn:
    """The tokens behind one prompt, and where the next ones are drawn from."""

    def __init__(
        self,
        prompt: Sequence[int],
        sampler: Sampler,
        *,
        where: str,
        stop_ids: Collection[int],
        guided: Callable[[int], Guide] | None = None,
        on_token: Callable[[int], None] | None = None,
    ) -> None:
        """`where` names the prompt in an error; `guided(room)` makes what holds it to a form."""
        self.prompt, self.where = list(prompt), where
        self.sampler, self.stream = sampler, sampler.stream()
        self.ids: list[int] = []
        self.stop_ids, self.room = stop_ids, sampler.generation.max_new_tokens
        self.guide: Guide | None = None
        self.cancelled = False
        self._guided, self._on_token = guided, on_token

    def begin(self, limit: int | None, name: str) -> None:
        """End with the context, `limit` tokens, of the model called `name`; called before `take`.

        Raises ModelError where the prompt leaves no room.
        """
        if limit is not None:
            if len(self.prompt) >= limit:
                raise ModelError(
                    f"{self.where}: the prompt has {len(self.prompt)} tokens, and {name} has room "
                    f"for {limit} together with the reply. Shorten the prompt."
                )
            self.room = min(self.room, limit - len(self.prompt))
        if self._guided is not None:
            self.guide = self._guided(self.room)

    def cancel(self) -> None:
        """Nobody wants more of it; may be called at any time, also from another thread."""
        self.cancelled = True

    @property
    def tokens(self) -> list[int]:
        """Prompt and reply."""
        return self.prompt + self.ids

    @property
    def left(self) -> int:
        """How many tokens may still follow."""
        return self.room - len(self.ids)

    @property
    def stopped(self) -> bool:
        """The model has ended it, or the guide has."""
        return bool(self.ids) and self.ends(self.ids[-1])

    @property
    def open(self) -> bool:
        """Whether another token follows."""
        return self.left > 0 and not self.stopped and not self.cancelled

    def ends(self, token: int) -> bool:
        """Whether `token`, which the guide has just accepted, is the last one."""
        return token in self.stop_ids or (self.guide is not None and self.guide.done)

    def take(self, token: int) -> bool:
        """The reply goes on with `token`. False: the guide wants another."""
        if self.guide is not None and not self.guide.accept(token):
            return False
        self.ids.append(token)
        if self._on_token is not None:
            self._on_token(token)
        return True


class TextStream:
    """Collects tokens and hands on their text as soon as it is certain."""

    def __init__(self, tokenizer: Tokenizer, on_text: Callable[[str], None]) -> None:
        self.ids: list[int] = []
        self.text = ""
        self._tokenizer = tokenizer
        self._on_text = on_text

    def put(self, token: int) -> None:
        """One more token of the reply."""
        self.ids.append(token)
        # The whole reply is decoded each time: what a token looks like depends on those before it.
        text = text_of(self._tokenizer, self.ids)
        if text.startswith(self.text) and len(text) > len(self.text):
            self._on_text(text[len(self.text) :])
            self.text = text


def text_of(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    """The text of a reply; a character of which the last bytes are missing is left out.

    Such a character decodes to U+FFFD, and may wait for the rest.
    """
    return tokenizer.decode(ids).rstrip("\ufffd")
