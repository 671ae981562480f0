"""The whole of an evaluation: find, ask, score."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from graftlab.caches import default_cache
from graftlab.console import console
from graftlab.data.files import locate
from graftlab.evaluation.asking import Likelihoods, Replies, ask_all, score_all
from graftlab.evaluation.blind import read_votes
from graftlab.evaluation.judges.base import PromptedJudge
from graftlab.evaluation.judging import judged
from graftlab.evaluation.questions import questions, run_data
from graftlab.evaluation.results import Early, Results
from graftlab.evaluation.sequential import check_deciding, is_clear, looks, shuffled
from graftlab.evaluation.speaking import find_speakers, load_speakers
from graftlab.recipes.rewriters.secret import key_for
from graftlab.registry import dump

if TYPE_CHECKING:
    from graftlab.evaluation.spec import EvaluateSpec


def evaluate(spec: EvaluateSpec) -> Results:
    """Everybody's replies to every prompt, scored; progress is shown.

    Raises ConfigError, DataError or ModelError; what was answered before is in the cache.
    """
    spec.metrics.check(endpoint=spec.endpoint is not None)
    if spec.prompts is not None:
        locate("prompts", spec.prompts)
    if spec.votes is not None:
        locate("votes", spec.votes)
    if spec.endpoint is not None:
        key_for(spec.endpoint, spec.key_env)
    if spec.judge is not None:
        spec.judge.check()
    found = find_speakers(spec)
    metrics = spec.metrics.chosen
    measures = {
        (name, measure): about
        for name, metric in metrics.items()
        for measure, about in metric.measures().items()
    }
    if spec.sequential:
        check_deciding(spec.decides, measures)
    data = run_data(found.trained, found.reserved)
    prompts = questions(spec.prompts, data, metrics, limit=spec.limit)
    seed, of = spec.generation.seed, len(prompts)
    if spec.sequential:
        prompts = shuffled(prompts, seed=seed)
    preferences = (spec.votes is not None) + isinstance(spec.judge, PromptedJudge)
    options = any(metric.needs_likelihoods for metric in metrics.values())

    def results(replies: Replies, likelihoods: Likelihoods) -> Results:
        asked = prompts[: min(map(len, replies.values()))]
        early = Early(of, len(asked) < of, seed, spec.decides) if spec.sequential else None
        return Results(
            prompts=asked,
            replies=replies,
            scores=score_all(metrics, asked, replies, likelihoods, data.training),
            measures=measures,
            models={speaker.name: speaker.told for speaker in speakers},
            settings={
                "asked": spec.prompts or "held-out rows",
                "draws": spec.draws,
                "generation": dump(spec.generation),
                "metrics": {name: dump(metric) for name, metric in metrics.items()},
            },
            early=early,
        )

    with ExitStack() as stack:
        speakers = load_speakers(spec, found, prompts, stack)
        replies, likelihoods = ask_all(
            speakers,
            prompts,
            draws=spec.draws,
            options=options,
            console=console(),
            looks=looks(of, batch=spec.batch) if spec.sequential else (),
            is_clear=lambda *seen: is_clear(results(*seen), spec.decides, preferences=preferences),
        )
    whole = results(replies, likelihoods)
    if spec.votes is not None:
        whole.preferences.append(read_votes(spec.votes, whole, seed=seed))
    if isinstance(spec.judge, PromptedJudge):
        cache = default_cache() if spec.cache is None else Path(spec.cache).expanduser()
        seen = judged(spec.judge, whole, seed=seed, cache=cache, console=console())
        whole.settings["judge"] = dump(spec.judge)
        whole.preferences.append(seen[0])
        whole.unfinished = seen[1]
    return whole
