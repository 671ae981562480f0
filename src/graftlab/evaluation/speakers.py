"""Who answers: one protocol for models on this machine and for an endpoint.

A speaker is asked for what the cache does not hold yet, and what it says is in the cache before it
is used: a run that was killed goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from graftlab.errors import GraftlabError, ModelError
from graftlab.evaluation.replies import Said

if TYPE_CHECKING:
    from graftlab.caches import RowCache
    from graftlab.generation.prompts import Prompt

Report = Callable[[int, int], None]
"""So many more replies are there, with so many tokens."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One reply that is wanted."""

    prompt: Prompt
    draw: int
    key: str
    """What the cache knows it by."""


class Speaker(ABC):
    """One who answers prompts, under a name."""

    name: str
    told: dict[str, Any]
    """What it is, for the results: path, fingerprint or address, and its system turn."""
    cache: RowCache

    @abstractmethod
    def key(self, prompt: Prompt, draw: int) -> str:
        """A hash of everything that decides the reply."""

    @abstractmethod
    def answer(self, asks: Sequence[Ask], report: Report) -> None:
        """Put a reply to each into the cache as it comes; the caller has sorted out known ones.

        Raises GraftlabError where one cannot be had.
        """

    @abstractmethod
    def likelihoods(self, prompt: Prompt) -> tuple[float, ...]:
        """Log-likelihood of each option of a prompt, in nats. Raises GraftlabError."""

    @contextmanager
    def ready(self) -> Iterator[None]:
        """Inside, it can be asked."""
        yield

    def replies(
        self, prompts: Sequence[Prompt], *, draws: int, report: Report
    ) -> list[tuple[Said, ...]]:
        """Every prompt's draws; those that are not in the cache are asked for.

        Raises GraftlabError that says how many are kept.
        """
        asks = [
            [Ask(prompt, draw, self.key(prompt, draw)) for draw in range(draws)]
            for prompt in prompts
        ]
        whole = [ask for group in asks for ask in group]
        left = {ask.key: ask for ask in whole if self._known(ask.key) is None}
        report(len(whole) - len(left), 0)
        if left:
            try:
                with self.ready():
                    self.answer(list(left.values()), report)
            except GraftlabError as error:
                kept = sum(self._known(ask.key) is not None for ask in whole)
                raise ModelError(
                    f"{error}\n{self.name}: {kept} of {len(whole)} replies are kept in "
                    f"{self.cache.path}; the same command asks only for the others."
                ) from error
        return [tuple(self._said(ask) for ask in group) for group in asks]

    def kept(self, prompt: Prompt, draw: int = 0) -> Said | None:
        """What the cache has of it."""
        return self._known(self.key(prompt, draw))

    def _said(self, ask: Ask) -> Said:
        found = self._known(ask.key)
        assert found is not None, f"no reply to {ask.prompt.conversation.where}"
        return found

    def _known(self, key: str) -> Said | None:
        return Said.of_row(self.cache.get(key))

    def options(self, prompts: Sequence[Prompt], report: Report) -> list[tuple[float, ...]]:
        """The likelihoods of every prompt's options, each computed once."""
        found = []
        with self.ready():
            for prompt in prompts:
                key = digest(["options", self.key(prompt, 0), list(prompt.options)])
                if (row := self.cache.get(key)) is None:
                    row = {"likelihoods": list(self.likelihoods(prompt))}
                    self.cache.put(key, row)
                found.append(tuple(row["likelihoods"]))
                report(1, 0)
        return found


def digest(content: Any) -> str:
    """32 hex digits of plain content."""
    text = json.dumps(content, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]
