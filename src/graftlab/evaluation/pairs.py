"""Two replies to one prompt, and in which order they are shown."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from graftlab.evaluation.results import Results


@dataclass(frozen=True, slots=True)
class Pair:
    """Two replies to one prompt, in the order in which they are shown."""

    place: int
    """Of the prompt."""
    models: tuple[str, str]
    """First and second, in the order of the results."""
    turned: bool
    """The second's reply is shown first."""
    texts: tuple[str, str]
    """As shown."""
    digest: str
    """Of all that is shown, the same whoever said it."""

    def value(self, chosen: int) -> float:
        """Of a choice of 1 or 2, as shown, or 0 for neither."""
        sign = {0: 0.0, 1: -1.0, 2: 1.0}[chosen]
        return -sign if self.turned and sign else sign


def pairs_of(found: Results, *, seed: int) -> Iterator[Pair]:
    """Every two replies that differ, sides by a hash of the seed and of the models' weights: what
    is shown does not tell who is who, even to those who know the seed.
    """
    seen: dict[str, int] = {}
    for first, second in combinations(found.replies, 2):
        salt = [seed, *(_identity(found.models[model]) for model in (first, second))]
        for place, prompt in enumerate(found.prompts):
            own = found.replies[first][place][0].text
            other = found.replies[second][place][0].text
            if own.strip() == other.strip():
                continue
            turns = [message.as_dict() for message in prompt.conversation.messages]
            turned = int(digest([salt, turns]), 16) % 2 == 1
            texts = (other, own) if turned else (own, other)
            content = digest([turns, texts])
            seen[content] = seen.get(content, 0) + 1
            whole = digest([content, seen[content]])
            yield Pair(place, (first, second), turned, texts, whole)


def no_preferences(found: Results) -> dict[tuple[str, str], list[float | None]]:
    """A value for each prompt and two models: a tie where they say the same, else not asked."""
    return {
        (first, second): [
            0.0 if own[0].text.strip() == other[0].text.strip() else None
            for own, other in zip(found.replies[first], found.replies[second], strict=True)
        ]
        for first, second in combinations(found.replies, 2)
    }


def digest(content: Any) -> str:
    """16 hex digits of plain content."""
    text = json.dumps(content, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _identity(told: dict[str, Any]) -> Sequence[Any]:
    return [told.get(key) for key in ("fingerprint", "scale", "endpoint", "model")]
