"""`metrics=style`: what a reply looks like: lists, headings, banned strings, length, speed."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from graftlab.errors import ConfigError, require_choice
from graftlab.evaluation.metrics.base import LESS, MORE, Measure, Metric
from graftlab.evaluation.metrics.json_schema import keeps_to
from graftlab.evaluation.metrics.patterns import is_found, require_pattern
from graftlab.recipes.sentences import sentences_of
from graftlab.recipes.words import words_of
from graftlab.registry import choice

if TYPE_CHECKING:
    from graftlab.evaluation.replies import Case, Judged

MARKS = {
    "list": re.compile(r"^ {0,6}(?:[-*+•]|\d{1,3}[.)])[ \t]+\S", re.M),
    "heading": re.compile(r"^ {0,3}#{1,6}[ \t]+\S", re.M),
    "code": re.compile(r"^ {0,3}(?:```|~~~)", re.M),
    "bold": re.compile(r"(?:\*\*|__)(?=\S)[^\n]{1,200}?(?<=\S)(?:\*\*|__)"),
}
"""Mark of Markdown -> how it is known."""

PATTERN = "metrics.style.pattern"
TAGS = (
    *("Human:", "User:", "Assistant:", "System:", "### Instruction", "### Response"),
    *("<|user|>", "<|assistant|>", "<|system|>", "<|im_start|>", "<|im_end|>", "[INST]"),
)
"""What chat templates and the models that were trained with them write around turns."""


@choice("style")
@dataclass(kw_only=True, slots=True)
class Style(Metric):
    """Markdown, stray role tags, length and speed; and whether a reply follows a template.

    Marks are neither good nor bad unless `want` or `avoid` says so.
    """

    banned: list[str] = field(default_factory=lambda: list(TAGS))
    """Strings that no reply should hold, such as stray role tags; case matters."""
    want: list[str] = field(default_factory=list)
    """Marks of which more is better: list, heading, code, bold."""
    avoid: list[str] = field(default_factory=list)
    """Marks of which less is better."""
    starts: str | None = None
    """What every reply must begin with, white space aside."""
    ends: str | None = None
    """What every reply must end with, white space aside."""
    pattern: str | None = None
    """A regular expression that must be found in every reply (`^` and `$` at every line)."""
    schema: Any = None
    """A JSON schema (a file, or the JSON itself) that every reply must keep to."""

    def __post_init__(self) -> None:
        for key in ("want", "avoid"):
            for mark in getattr(self, key):
                require_choice(f"metrics.style.{key}", mark, list(MARKS))
        if both := set(self.want) & set(self.avoid):
            raise ConfigError(f"metrics.style: {', '.join(sorted(both))} is wanted and avoided.")
        if self.pattern is not None:
            require_pattern(PATTERN, self.pattern)
        if self.schema is not None:
            from graftlab.generation.schema import read_schema

            self.schema = read_schema(self.schema, key="metrics.style.schema", held=False)

    def measures(self) -> dict[str, Measure]:
        found = {
            f"pct_{mark}": Measure(
                about=f"replies with {what}", better=self._better(mark), share=True
            )
            for mark, what in (
                *(("list", "a list"), ("heading", "a heading")),
                *(("code", "a code block"), ("bold", "bold text")),
            )
        }
        found["avg_banned_hits"] = Measure(about="banned strings per reply", better=LESS)
        if self._has_template:
            about = "replies that follow the template"
            found["pct_template"] = Measure(about=about, better=MORE, share=True)
        return found | {
            "avg_words": Measure(about="words per reply"),
            "avg_sentences": Measure(about="sentences per reply"),
            "avg_tokens": Measure(about="tokens per reply, its end included"),
            "pct_stopped": Measure(about="replies that the model ended itself", share=True),
            "avg_tokens_per_s": Measure(about="tokens per second of its batch", timed=True),
        }

    def score(self, case: Case) -> Judged:
        text, said = case.said.text, case.said
        scores: Judged = {
            f"pct_{mark}": float(pattern.search(text) is not None)
            for mark, pattern in MARKS.items()
        }
        scores["avg_banned_hits"] = float(sum(map(text.count, filter(None, self.banned))))
        if self._has_template:
            scores["pct_template"] = float(self._follows(text.strip()))
        paragraphs = [part for part in re.split(r"\n\s*\n", text) if part.strip()]
        counted = said.num_tokens > 0
        return scores | {
            "avg_words": float(len(words_of(text))),
            "avg_sentences": float(sum(len(sentences_of(part)) for part in paragraphs)),
            "avg_tokens": float(said.num_tokens) if counted else None,
            "pct_stopped": float(said.stopped),
            "avg_tokens_per_s": said.num_tokens / max(said.seconds, 1e-9) if counted else None,
        }

    def _better(self, mark: str) -> str | None:
        return MORE if mark in self.want else LESS if mark in self.avoid else None

    @property
    def _has_template(self) -> bool:
        return any(part is not None for part in (self.starts, self.ends, self.pattern, self.schema))

    def _follows(self, text: str) -> bool:
        return (
            text.startswith((self.starts or "").strip())
            and text.endswith((self.ends or "").strip())
            and (self.pattern is None or is_found(PATTERN, self.pattern, text))
            and (self.schema is None or keeps_to(text, self.schema))
        )
