"""`metrics=bleu`: how many runs of up to four words of a reply the reference has."""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, log
from typing import TYPE_CHECKING

from graftlab.errors import require_choice
from graftlab.evaluation.metrics.base import MORE, Measure, Metric, lacks_reference
from graftlab.registry import choice

if TYPE_CHECKING:
    from graftlab.evaluation.replies import Case, Judged
    from graftlab.generation.prompts import Prompt

TOKENIZERS = ("13a", "zh", "char", "none")


@choice("bleu")
@dataclass(kw_only=True, slots=True)
class Bleu(Metric):
    """BLEU (Papineni et al. 2002, ACL P02-1040) of each reply, 0 to 100, as sacrebleu's
    `sentence_bleu` has it; runs of words are counted by torchmetrics.

    Lengths without a match count half of what the one before would (smoothing 3 of Chen & Cherry
    2014, ACL W14-3346), and lengths that the reply is too short for not at all: torchmetrics' own
    score is 0 for most single replies. The mean over replies is not the BLEU of a corpus.
    """

    tokenize: str = "13a"
    """How words are told apart: 13a, zh, char or none."""
    lowercase: bool = False
    """Take capital and small letters as the same."""

    def __post_init__(self) -> None:
        require_choice("metrics.bleu.tokenize", self.tokenize, TOKENIZERS)

    def measures(self) -> dict[str, Measure]:
        about = "BLEU of single replies against the reference"
        return {"avg_bleu": Measure(about=about, better=MORE, most=100.0)}

    def lacks(self, prompt: Prompt) -> str | None:
        return lacks_reference(prompt)

    def score(self, case: Case) -> Judged:
        from torchmetrics.text import SacreBLEUScore

        metric = SacreBLEUScore(tokenize=self.tokenize, lowercase=self.lowercase)  # type: ignore[arg-type]
        metric.update([case.said.text], [[case.prompt.expected or ""]])
        matched, possible = metric.numerator.tolist(), metric.denominator.tolist()
        said, wanted = float(metric.preds_len), float(metric.target_len)
        if not matched[0]:
            return {"avg_bleu": 0.0}
        logs, missed = [], 1.0
        for hits, runs in zip(matched, possible, strict=True):
            if runs == 0:
                break
            missed *= 1.0 if hits else 2.0
            logs.append(log((hits or 1 / missed) / runs))
        brevity = min(0.0, 1 - wanted / said)
        return {"avg_bleu": 100 * exp(brevity + sum(logs) / len(logs))}
