"""What a runtime is asked of an export: its own ids, log-probabilities, replies and ends."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from graftlab.types import Message


@dataclass(frozen=True, slots=True)
class NotHere:
    """No runtime for an export on this machine."""

    why: str
    """For people, such as `mlx-lm is not installed`."""


@dataclass(frozen=True, slots=True)
class Scores:
    """What a runtime gives the tokens of an answer, n positions, in nats."""

    chosen: Tensor
    """(n,) log-probability of each token of the answer."""
    full: Tensor | None = None
    """(n, V) log-probability of every token, where the runtime tells them."""
    likely: Sequence[Mapping[int, float]] = field(default=())
    """Else the likeliest tokens of each position, with their log-probabilities."""


class Runtime(ABC):
    """One program with one export loaded, inside `opened`."""

    name: str
    """For people: what it is, and its version."""
    ends_replies: bool = True
    """Whether the export says where replies end; else whoever calls the runtime does."""

    @abstractmethod
    def opened(self) -> AbstractContextManager[None]:
        """Load the export for the length of a `with` block. Raises ModelError."""

    @abstractmethod
    def prompt(self, messages: Sequence[Message], tools: Sequence[dict[str, Any]]) -> list[int]:
        """The ids of a conversation that asks for an answer, by the runtime's own template."""

    @abstractmethod
    def score(self, prompt: Sequence[int], answer: Sequence[int]) -> Scores:
        """Log-probabilities of an answer behind a prompt."""

    @abstractmethod
    def reply(self, prompt: Sequence[int], most: int) -> list[int]:
        """The greedy reply, at most so many tokens; the one that ends it may be left out."""

    @abstractmethod
    def ends_at(self, token: int) -> bool:
        """Whether a reply ends where this token is drawn, asked by letting it be drawn."""

    def alone(self) -> AbstractContextManager[bool]:
        """The base by itself in the same runtime; False where it cannot be asked."""
        return _cannot()


@contextmanager
def _cannot() -> Iterator[bool]:
    yield False
