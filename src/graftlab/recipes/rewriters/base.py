"""What every rewriter is: passages in, one plain rewrite (or a reason why not) for each out.

with spec.opened() as rewrite:
    rewrite(["The tenebrous ...", "..."])  ->  ["The dark ...", Miss("no answer", ...)]
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from graftlab.errors import ConfigError, GraftlabError
from graftlab.registry import choice, group
from graftlab.text.frame import Frame, load_frame
from graftlab.types import Conversation, Message


class RewriterError(GraftlabError):
    """A rewriter that cannot go on at all: refused, unreachable, or out of money."""


@dataclass(frozen=True, slots=True)
class Miss:
    """A text that could not be made into an input, and why."""

    reason: str
    """A short stable phrase, to be counted."""
    detail: str = ""


Rewrite = Callable[[Sequence[str]], list[str | Miss]]
"""Texts -> one rewrite or Miss for each, in order. Raises RewriterError when it cannot go on."""


@group("rewriter")
@dataclass(kw_only=True, slots=True)
class RewriterSpec(ABC):
    """Base of the choices of `rewriter`."""

    @abstractmethod
    def check(self) -> None:
        """Raise ConfigError for what is missing, without loading or asking anything."""

    @abstractmethod
    def opened(self) -> AbstractContextManager[Rewrite | None]:
        """How to ask, while inside. Raises ConfigError or ModelError when it cannot be had."""


@choice("none")
@dataclass(kw_only=True, slots=True)
class NoRewriter(RewriterSpec):
    """`rewriter=none`: no neutral inputs are made."""

    def check(self) -> None:
        """Nothing can be missing."""

    def opened(self) -> AbstractContextManager[Rewrite | None]:
        """Nobody to ask."""
        return nullcontext()


@dataclass(kw_only=True, slots=True)
class PromptedRewriter(RewriterSpec):
    """What rewriters that are language models share: how they are asked."""

    prompt: str = "rewrite-neutral"
    """Frame around each passage (a YAML file, or the name of a shipped one)."""

    def frame(self) -> Frame:
        """The frame, read. Raises ConfigError for a missing or broken one."""
        try:
            return load_frame(self.prompt)
        except ConfigError as error:
            raise ConfigError(f"rewriter.prompt: {error}") from None


def asked(frame: Frame, text: str) -> Conversation:
    """What a language model is sent for one text."""
    return frame.apply(Conversation((Message("user", text),)))
