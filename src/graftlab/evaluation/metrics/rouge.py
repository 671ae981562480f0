"""`metrics=rouge`: how much of the reference's words and their order a reply has."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from graftlab.evaluation.metrics.base import MORE, Measure, Metric, lacks_reference
from graftlab.registry import choice

if TYPE_CHECKING:
    from graftlab.evaluation.replies import Case, Judged
    from graftlab.generation.prompts import Prompt

MEASURES = {"avg_rouge1": "words", "avg_rouge2": "pairs of words", "avg_rougeL": "words in order"}
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|[^\W_\u3040-\u30ff\u3400-\u9fff]+")


@choice("rouge")
@dataclass(kw_only=True, slots=True)
class Rouge(Metric):
    """F-measures of ROUGE-1, ROUGE-2 and ROUGE-L (Lin 2004, ACL W04-1013) by torchmetrics, 0 to 1.

    Words are taken in small letters and without stemming: letters and digits of any script, where
    the original knows those of ASCII alone; a Chinese or Japanese character is a word.
    """

    def measures(self) -> dict[str, Measure]:
        return {
            name: Measure(about=f"{what} shared with the reference", better=MORE, most=1.0)
            for name, what in MEASURES.items()
        }

    def lacks(self, prompt: Prompt) -> str | None:
        return lacks_reference(prompt)

    def score(self, case: Case) -> Judged:
        from torchmetrics.functional.text.rouge import rouge_score

        found = rouge_score(
            case.said.text,
            case.prompt.expected or "",
            rouge_keys=tuple(name.removeprefix("avg_") for name in MEASURES),
            normalizer=str.lower,
            tokenizer=_WORD.findall,
        )
        return {name: float(found[f"{name.removeprefix('avg_')}_fmeasure"]) for name in MEASURES}
