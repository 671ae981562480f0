"""`metrics=regex`: whether a regular expression is found in a reply."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from graftlab.errors import ConfigError
from graftlab.evaluation.metrics.base import MORE, Measure, Metric, lacks_reference
from graftlab.evaluation.metrics.patterns import is_found, require_pattern
from graftlab.registry import choice

if TYPE_CHECKING:
    from graftlab.evaluation.replies import Case, Judged
    from graftlab.generation.prompts import Prompt

KEY = "metrics.regex.pattern"


@choice("regex")
@dataclass(kw_only=True, slots=True)
class Regex(Metric):
    """One expression for all replies, or each prompt's reference as its own."""

    pattern: str | None = None
    """What must be found (`^` and `$` at every line); null takes each prompt's reference."""
    whole: bool = False
    """The reply as a whole must match, white space around it aside."""

    def __post_init__(self) -> None:
        if self.pattern is not None:
            require_pattern(KEY, self.pattern)

    def measures(self) -> dict[str, Measure]:
        return {"pct_match": Measure(about="replies that match", better=MORE, share=True)}

    def lacks(self, prompt: Prompt) -> str | None:
        if self.pattern is not None or (missing := lacks_reference(prompt)) is None:
            return self._broken(prompt)
        return missing

    def score(self, case: Case) -> Judged:
        pattern, text = self.pattern or case.prompt.expected, case.said.text
        assert pattern is not None, "checked before"
        where = KEY if self.pattern else f"{case.prompt.conversation.where}: the reference"
        text = text.strip() if self.whole else text
        return {"pct_match": float(is_found(where, pattern, text, whole=self.whole))}

    def _broken(self, prompt: Prompt) -> str | None:
        try:
            require_pattern("the reference", self.pattern or prompt.expected or "")
        except ConfigError as error:
            return str(error).rstrip(".")
        return None
