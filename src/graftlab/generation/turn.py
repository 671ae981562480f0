"""One reply in the making: the tokens it has, how many may follow, and its text as it grows."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

from graftlab.errors import ModelError

if TYPE_CHECKING:
    import torch

    from graftlab.generation.draw import Guide
    from graftlab.text.tokenizer import Tokenizer


class Turn:
    """The tokens behind one prompt; `take` adds one and says whether more may follow."""

    def __init__(
        self,
        prompt: Sequence[int],
        *,
        where: str,
        stop_ids: Collection[int],
        max_new_tokens: int,
        stream: torch.Generator,
        guide: Guide | None = None,
        on_token: Callable[[int], None] | None = None,
    ) -> None:
        """`where` names the prompt in an error; `stream` is where its tokens are drawn from."""
        self.prompt, self.where = list(prompt), where
        self.ids: list[int] = []
        self.stop_ids, self.room = stop_ids, max_new_tokens
        self.stream, self.guide = stream, guide
        self.stopped = False
        self._on_token = on_token

    @property
    def tokens(self) -> list[int]:
        """Prompt and reply."""
        return self.prompt + self.ids

    @property
    def left(self) -> int:
        """How many tokens may still follow."""
        return self.room - len(self.ids)

    def fit(self, limit: int | None, name: str) -> None:
        """End with the context of the model called `name`. Raises ModelError where none is left."""
        if limit is None:
            return
        if len(self.prompt) >= limit:
            raise ModelError(
                f"{self.where}: the prompt has {len(self.prompt)} tokens, and {name} has room for "
                f"{limit} together with the reply. Shorten the prompt."
            )
        self.room = min(self.room, limit - len(self.prompt))

    def take(self, token: int) -> bool:
        """The reply goes on with `token`; whether it is still open."""
        self.ids.append(token)
        if self.guide is not None:
            self.guide.accept(token)
        self.stopped = self.ends(token)
        if self._on_token is not None:
            self._on_token(token)
        return not self.stopped and self.left > 0

    def ends(self, token: int) -> bool:
        """Whether `token`, just accepted by the guide, is the last one."""
        return token in self.stop_ids or (self.guide is not None and self.guide.done)


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
