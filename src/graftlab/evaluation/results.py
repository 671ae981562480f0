"""The evaluation as a whole: replies, scores, means and verdicts, and as plain JSON.

OUT/
  replies.jsonl     a prompt a line: prompt, reference, every reply with every score
  report.html       the same to be read in a browser
  results.json      means, intervals and verdicts, and what was asked by whom
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from itertools import combinations
from math import isfinite
from statistics import fmean
from typing import TYPE_CHECKING, Any

from graftlab.evaluation.verdicts import (
    Contrast,
    Estimate,
    Values,
    Verdict,
    contrast,
    estimate,
    verdicts,
)

if TYPE_CHECKING:
    from graftlab.evaluation.metrics.base import Measure
    from graftlab.evaluation.preferences import Preference
    from graftlab.evaluation.replies import Judged, Said
    from graftlab.generation.prompts import Prompt


@dataclass(frozen=True, slots=True)
class Early:
    """How asking went that stops when the verdict is clear."""

    of: int
    """Prompts that there were to ask."""
    stopped: bool
    """Whether some were left when it was clear."""
    seed: int
    """By which their order was drawn."""
    by: list[str]
    """Metrics or measures that decided; all that are judged where none is named."""


Name = tuple[str, str]
"""Metric and measure, such as ("style", "pct_list")."""


@dataclass
class Results:
    """Everything that was said and scored; means and verdicts are worked out when asked for."""

    prompts: list[Prompt]
    replies: dict[str, list[tuple[Said, ...]]]
    """Model -> the draws of each prompt."""
    scores: dict[str, dict[str, list[list[Judged]]]]
    """Model -> metric -> the draws of each prompt."""
    measures: dict[Name, Measure]
    models: dict[str, dict[str, Any]]
    """Model -> what it is."""
    settings: dict[str, Any]
    """What was asked for, as keys."""
    early: Early | None = None
    """Where asking may have stopped early; `prompts` are then in the order they were asked."""
    preferences: list[Preference] = field(default_factory=list)
    """Of people and judges between two replies; there before verdicts are asked for."""
    unfinished: str | None = None
    """Why a judge has not judged all, if so."""

    def measure(self, name: Name) -> Measure:
        """That of scores or preferences."""
        preferred = {one.name: one.measure for one in self.preferences}
        return preferred[name] if name in preferred else self.measures[name]

    def values(self, model: str, name: Name) -> Values:
        """A measure of each prompt: the mean over its draws."""
        metric, measure = name
        found: list[float | None] = []
        for draws in self.scores[model][metric]:
            known = [value for draw in draws if (value := draw[measure]) is not None]
            found.append(fmean(known) if known else None)
        return found

    @cached_property
    def means(self) -> dict[tuple[str, Name], Estimate]:
        """(model, measure) -> its mean, of those that say anything."""
        found = {
            (model, name): estimate(self.values(model, name), share=measure.share)
            for model in self.replies
            for name, measure in self.measures.items()
        }
        return {key: value for key, value in found.items() if value is not None}

    @cached_property
    def verdicts(self) -> dict[tuple[str, str, Name], Verdict]:
        """(first, second, measure) -> how the second compares with the first."""
        found: dict[tuple[str, str, Name], Contrast] = {}
        for first, second in combinations(self.replies, 2):
            for name, measure in self.measures.items():
                values = self.values(first, name), self.values(second, name)
                seen = contrast(
                    *values,
                    share=measure.share,
                    anytime=self.early is not None,
                    most=measure.most,
                )
                if seen is not None:
                    found[first, second, name] = seen
        for one in self.preferences:
            for pair in one.pairs:
                seen = one.contrast(pair, anytime=self.early is not None)
                if seen is not None:
                    found[*pair, one.name] = seen
        better = {key: self.measure(key[2]).better for key in found}
        return verdicts(found, better)

    def as_json(self) -> dict[str, Any]:
        """`results.json`: shares in percent."""
        return {
            **self.settings,
            "prompts": len(self.prompts),
            **({"unfinished": self.unfinished} if self.unfinished else {}),
            **({"sequential": asdict(self.early)} if self.early is not None else {}),
            "models": {
                model: {
                    **told,
                    "metrics": {
                        metric: {
                            measure: _estimate(
                                self.means.get((model, (metric, measure))),
                                self.measures[metric, measure].unit,
                            )
                            for measure in measures
                        }
                        for metric, measures in self._by_metric().items()
                    },
                }
                for model, told in self.models.items()
            },
            "measures": {
                metric: {
                    measure: {
                        "about": self.measures[metric, measure].about,
                        "better": self.measures[metric, measure].better,
                    }
                    for measure in measures
                }
                for metric, measures in self._by_metric().items()
            },
            "comparisons": [
                _comparison(key, found, self.measure(key[2]).unit)
                for key, found in self.verdicts.items()
            ],
            **(
                {"preferences": [one.as_json() for one in self.preferences]}
                if self.preferences
                else {}
            ),
        }

    def rows(self) -> Iterator[dict[str, Any]]:
        """`replies.jsonl`: shares as 0 or 1."""
        for place, prompt in enumerate(self.prompts):
            conversation = prompt.conversation
            yield {
                "where": conversation.where,
                "prompt": [message.as_dict() for message in conversation.messages],
                **({"tools": list(conversation.tools)} if conversation.tools else {}),
                "reference": prompt.expected,
                **({"options": list(prompt.options)} if prompt.options else {}),
                "replies": {
                    model: [
                        {
                            **said.as_row(),
                            "scores": {
                                metric: per_prompt[place][draw]
                                for metric, per_prompt in self.scores[model].items()
                            },
                        }
                        for draw, said in enumerate(draws[place])
                    ]
                    for model, draws in self.replies.items()
                },
                **self._preferred(place),
            }

    def _preferred(self, place: int) -> dict[str, Any]:
        found = {
            one.by: [
                {"of": second, "against": first, "value": values[place]}
                for (first, second), values in one.pairs.items()
            ]
            for one in self.preferences
        }
        return {"preferences": found} if found else {}

    def _by_metric(self) -> Mapping[str, Sequence[str]]:
        found: dict[str, list[str]] = {}
        for metric, measure in self.measures:
            found.setdefault(metric, []).append(measure)
        return found


def _estimate(found: Estimate | None, unit: float) -> dict[str, Any] | None:
    if found is None:
        return None
    return {
        "mean": found.mean * unit,
        "low": _finite(found.low * unit),
        "high": _finite(found.high * unit),
        "n": found.n,
    }


def _comparison(key: tuple[str, str, Name], found: Verdict, unit: float) -> dict[str, Any]:
    first, second, (metric, measure) = key
    return {
        "of": second,
        "against": first,
        "metric": metric,
        "measure": measure,
        "difference": _estimate(found.contrast.difference, unit),
        "method": found.contrast.method,
        "p": found.contrast.p,
        "p_holm": found.adjusted,
        "verdict": found.word or None,
        "more_prompts": found.more_prompts,
    }


def _finite(value: float) -> float | None:
    """JSON knows no infinity: the bounds of a single value are not known."""
    return value if isfinite(value) else None
