"""`metrics=number`: whether the last number of a reply is the reference's (GSM8K's way)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING

from graftlab.evaluation.metrics.base import MORE, Measure, Metric
from graftlab.registry import choice

if TYPE_CHECKING:
    from graftlab.evaluation.replies import Case, Judged
    from graftlab.generation.prompts import Prompt

MARK = "####"
"""What stands before the answer in GSM8K (arXiv 2110.14168)."""
_NUMBER = re.compile(r"(?<![\w.])[-−]?[$€£]?(\d{1,3}(?:,\d{3})+|\d+)(\.\d+)?(?![\d])")
_LONGEST = 60


@choice("number")
@dataclass(kw_only=True, slots=True)
class Number(Metric):
    """The last number of the reply equals that of the reference.

    Behind `####`, where that stands, the first one counts instead. Signs of money and commas
    between thousands are passed over; 12 and 12.00 are the same.
    """

    tolerance: float = 0.0
    """Difference from the reference up to which a number is right."""

    def measures(self) -> dict[str, Measure]:
        return {
            "pct_right": Measure(about="replies with the right number", better=MORE, share=True),
            "pct_answered": Measure(about="replies with a number at all", share=True),
        }

    def lacks(self, prompt: Prompt) -> str | None:
        found = number_in(prompt.expected or "")
        return "no reference with a number in it" if found is None else None

    def score(self, case: Case) -> Judged:
        said, wanted = number_in(case.said.text), number_in(case.prompt.expected or "")
        right = said is not None and wanted is not None
        right = right and abs(said - wanted) <= Decimal(str(self.tolerance))  # type: ignore[operator]
        return {"pct_right": float(right), "pct_answered": float(said is not None)}


def number_in(text: str) -> Decimal | None:
    """The number that a text ends up with."""
    _, mark, behind = text.rpartition(MARK)
    found = [match for match in _NUMBER.finditer(behind if mark else text) if _is_short(match)]
    if not found:
        return None
    match = found[0] if mark else found[-1]
    negative = match.group().startswith(("-", "−"))
    value = Decimal(match[1].replace(",", "") + (match[2] or ""))
    return -value if negative else value


def _is_short(match: re.Match[str]) -> bool:
    return len(match.group()) <= _LONGEST
