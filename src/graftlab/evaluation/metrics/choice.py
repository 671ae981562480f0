"""`metrics=choice`: whether a model finds the right one of several answers the likeliest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from graftlab.evaluation.metrics.base import MORE, Measure, Metric, lacks_reference
from graftlab.registry import choice

if TYPE_CHECKING:
    from graftlab.evaluation.replies import Case, Judged
    from graftlab.generation.prompts import Prompt


@choice("choice")
@dataclass(kw_only=True, slots=True)
class Choice(Metric):
    """Likelihoods of the prompt's `options` as replies, by their sum and by their mean.

    As accuracy and normalised accuracy in lm-evaluation-harness (arXiv 2405.14782): the sum over
    all tokens favours short options; divided by the bytes of the option it does not. Nothing that
    is said counts, so draws and decoding change nothing.
    """

    needs_likelihoods: ClassVar[bool] = True

    def measures(self) -> dict[str, Measure]:
        likely = "prompts whose right option is the likeliest"
        return {
            "pct_right": Measure(about=likely, better=MORE, share=True),
            "pct_right_per_byte": Measure(about=f"{likely} per byte", better=MORE, share=True),
            "avg_probability": Measure(about="probability of the right one among the options"),
        }

    def lacks(self, prompt: Prompt) -> str | None:
        return "no `options` to choose among" if not prompt.options else lacks_reference(prompt)

    def score(self, case: Case) -> Judged:
        from math import exp, fsum

        options, found = case.prompt.options, case.likelihoods
        right = options.index(str(case.prompt.expected))
        lengths = [len(text.encode("utf-8", "surrogatepass")) for text in options]
        per_byte = [total / length for total, length in zip(found, lengths, strict=True)]
        top = max(found)
        weights = [exp(total - top) for total in found]
        return {
            "pct_right": float(found[right] == top),
            "pct_right_per_byte": float(per_byte[right] == max(per_byte)),
            "avg_probability": weights[right] / fsum(weights),
        }
