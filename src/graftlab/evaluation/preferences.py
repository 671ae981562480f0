"""Which of two replies is preferred, prompt by prompt: by people or by a judge.

    values of a pair of models      1 the second's, -1 the first's, 0 neither, None not asked

Replies that are the same are a tie that nobody is asked about. Where there are several draws, the
first is compared.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from graftlab.evaluation.metrics.base import MORE, Measure
from graftlab.evaluation.verdicts import Contrast, Values, contrast

PREFERRED = "pct_preferred"


@dataclass(slots=True)
class Preference:
    """Everything that one kind of judge prefers."""

    by: str
    """`judge` or `votes`."""
    pairs: dict[tuple[str, str], list[float | None]]
    """(first, second) -> a value for each prompt."""
    told: dict[str, Any] = field(default_factory=dict)
    """How it was found, for the results."""
    said: list[str] = field(default_factory=list)
    """The same in sentences."""
    worthless: str | None = None
    """Why nobody is called better by it, if so."""

    @property
    def name(self) -> tuple[str, str]:
        """As of a measure."""
        return self.by, PREFERRED

    @property
    def measure(self) -> Measure:
        """What the difference is of."""
        about = "prompts on which its reply is preferred, less those on which the other's is"
        return Measure(about=about, better=None if self.worthless else MORE, share=True)

    def contrast(self, pair: tuple[str, str], *, anytime: bool) -> Contrast | None:
        """How often the second is preferred, less how often the first is: exact McNemar is then
        the sign test of the prompts that are no ties.
        """
        values = self.pairs[pair]
        first, second = (
            [None if value is None else float(sign * value > 0) for value in values]
            for sign in (-1, 1)
        )
        return contrast(first, second, share=True, anytime=anytime, most=1.0)

    def notes(self) -> list[str]:
        """What there is to say of it, in sentences."""
        return [*self.said, *([self.worthless] if self.worthless else [])]

    def as_json(self) -> dict[str, Any]:
        """For `results.json`."""
        return {
            "by": self.by,
            **self.told,
            **({"worthless": self.worthless} if self.worthless else {}),
            "pairs": [
                {"of": second, "against": first, **_counts(values)}
                for (first, second), values in self.pairs.items()
            ],
        }


def _counts(values: Values) -> dict[str, int]:
    known = [value for value in values if value is not None]
    won, lost = sum(value > 0 for value in known), sum(value < 0 for value in known)
    return {"compared": len(known), "won": won, "lost": lost, "ties": len(known) - won - lost}
