"""`metrics=exact-match`: whether a reply is the reference."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from graftlab.evaluation.metrics.base import MORE, Measure, Metric, lacks_reference
from graftlab.registry import choice

if TYPE_CHECKING:
    from graftlab.evaluation.replies import Case, Judged
    from graftlab.generation.prompts import Prompt


@choice("exact-match")
@dataclass(kw_only=True, slots=True)
class ExactMatch(Metric):
    """Reply and reference are the same text, runs of white space being one space."""

    ignore_case: bool = False
    """Take capital and small letters as the same."""
    ignore_punctuation: bool = False
    """Leave out all but letters, digits and the space between them."""
    first_line: bool = False
    """Compare only the first line of the reply with something on it."""

    def measures(self) -> dict[str, Measure]:
        about = "replies that are the reference"
        return {"pct_exact": Measure(about=about, better=MORE, share=True)}

    def lacks(self, prompt: Prompt) -> str | None:
        return lacks_reference(prompt)

    def score(self, case: Case) -> Judged:
        said = case.said.text.strip()
        if self.first_line:
            said = said.partition("\n")[0]
        return {"pct_exact": float(self._plain(said) == self._plain(case.prompt.expected or ""))}

    def _plain(self, text: str) -> str:
        if self.ignore_case:
            text = text.casefold()
        if self.ignore_punctuation:
            text = re.sub(r"[^\w\s]|_", "", text)
        return " ".join(text.split())
