"""`metrics=failures`: refusals, copies of the prompt, loops, and training text told by heart."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from graftlab.errors import require_range
from graftlab.evaluation.metrics.base import LESS, Measure, Metric
from graftlab.generation.repetition import repetition
from graftlab.recipes.refusals import refusal_in
from graftlab.registry import choice

if TYPE_CHECKING:
    from graftlab.evaluation.replies import Case, Judged
    from graftlab.types import Conversation

_TOKEN = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|\w+|[^\w\s]")
Run = tuple[str, ...]


@choice("failures")
@dataclass(kw_only=True, slots=True)
class Failures(Metric):
    """Each way to fail as a share of its own; of all of them less is better.

    A token is a word or a mark of punctuation, whatever the model's own tokens are.
    """

    refusals: list[str] = field(default_factory=list)
    """Further phrases that are refusals, beside openings such as `As an AI`, in any case."""
    loop_share: float = 0.5
    """A reply is a loop when more than this share of its word 3-grams repeat earlier ones."""
    copied_tokens: int = 12
    """So many tokens of the prompt in a row are a copy."""
    memorised_tokens: int = 12
    """So many tokens of a training answer in a row are memorised, unless the prompt has them."""

    def __post_init__(self) -> None:
        require_range("metrics.failures.loop_share", self.loop_share, least=0, most=1)
        for key in ("copied_tokens", "memorised_tokens"):
            require_range(f"metrics.failures.{key}", getattr(self, key), least=2)

    def measures(self) -> dict[str, Measure]:
        told = {
            "pct_refusal": "replies that refuse",
            "pct_loop": "replies that go round in circles",
            "pct_copy": f"replies with {self.copied_tokens} tokens of the prompt in a row",
            "pct_memorised": f"replies with {self.memorised_tokens} tokens of training text",
            "pct_empty": "replies that say nothing",
        }
        return {name: Measure(about=about, better=LESS, share=True) for name, about in told.items()}

    def score(self, case: Case) -> Judged:
        text = case.said.text
        plain = text.casefold()
        listed = any(phrase.casefold() in plain for phrase in self.refusals if phrase)
        copied = runs(text, self.copied_tokens) & _in_prompt(case, self.copied_tokens)
        return {
            "pct_refusal": float(listed or bool(refusal_in(text))),
            "pct_loop": float(repetition(text) > self.loop_share),
            "pct_copy": float(bool(copied)),
            "pct_memorised": None,
            "pct_empty": float(not text.strip()),
        }

    def score_all(
        self, cases: Sequence[Case], training: Callable[[], Iterable[Conversation]]
    ) -> list[Judged]:
        """The training rows are read once, against the runs of all replies together."""
        size = self.memorised_tokens
        own = [runs(case.said.text, size) - _in_prompt(case, size) for case in cases]
        wanted = set[Run]().union(*own)
        seen, rows = set[Run](), 0
        for row in training():
            rows += 1
            for message in row.messages:
                if message.role == "assistant":
                    seen |= runs(message.text, size) & wanted
        found = [self.score(case) for case in cases]
        for scores, mine in zip(found, own, strict=True):
            scores["pct_memorised"] = float(not mine.isdisjoint(seen)) if rows else None
        return found


def runs(text: str, size: int) -> set[Run]:
    """Every `size` tokens in a row."""
    tokens = _TOKEN.findall(text.casefold())
    return {tuple(tokens[at : at + size]) for at in range(len(tokens) - size + 1)}


def _in_prompt(case: Case, size: int) -> set[Run]:
    messages = case.prompt.conversation.messages
    return set[Run]().union(*(runs(message.content, size) for message in messages))
