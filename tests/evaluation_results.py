"""Results of an evaluation made by hand: two models, texts that would break a page."""

from __future__ import annotations

from graftlab.evaluation.asking import score_all
from graftlab.evaluation.metrics.exact_match import ExactMatch
from graftlab.evaluation.metrics.style import Style
from graftlab.evaluation.replies import Said
from graftlab.evaluation.results import Results
from graftlab.generation.prompts import Prompt
from graftlab.types import Conversation, Message

HOSTILE = '</script><img src=x onerror="alert(1)"> & <b>'


def made_results(count: int = 12, *, models: tuple[str, ...] = ("base", "run<1>")) -> Results:
    """The second model is right where the number of the prompt is even, the first never."""
    prompts = [
        Prompt(
            Conversation((Message("user", f"Question {n} {HOSTILE}"),), f"<{n}>.jsonl", n + 1),
            f"Answer {n}",
        )
        for n in range(count)
    ]
    replies = {
        model: [
            (
                Said(
                    f"Answer {n}" if number and n % 2 == 0 else f"Wrong {n} {HOSTILE}", 5, True, 0.1
                ),
            )
            for n in range(count)
        ]
        for number, model in enumerate(models)
    }
    metrics = {"style": Style(banned=["<b>"]), "exact_match": ExactMatch()}
    return Results(
        prompts=prompts,
        replies=replies,
        scores=score_all(metrics, prompts, replies, {}, list),
        measures={
            (name, measure): about
            for name, metric in metrics.items()
            for measure, about in metric.measures().items()
        },
        models={model: {"path": HOSTILE} for model in models},
        settings={
            "asked": f"prompts{HOSTILE}.jsonl",
            "draws": 1,
            "generation": {"temperature": 0.0, "max_new_tokens": 8},
        },
    )


def _text(number: int, *, right: bool) -> str:
    return f"Answer {number}" if right else f"Wrong {number} {HOSTILE}"
