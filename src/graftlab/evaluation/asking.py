"""Every prompt answered by everybody, and every reply scored."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from graftlab.evaluation.replies import Case, Judged, Said
from graftlab.progress import Progress

if TYPE_CHECKING:
    from rich.console import Console

    from graftlab.evaluation.metrics.base import Metric
    from graftlab.evaluation.speakers import Speaker
    from graftlab.generation.prompts import Prompt
    from graftlab.types import Conversation

Replies = dict[str, list[tuple[Said, ...]]]
"""Model -> the draws of each prompt."""
Likelihoods = dict[str, list[tuple[float, ...]]]
"""Model -> those of each prompt's options."""


def ask_all(
    speakers: Sequence[Speaker],
    prompts: Sequence[Prompt],
    *,
    draws: int,
    options: bool,
    console: Console | None = None,
    looks: Sequence[int] = (),
    is_clear: Callable[[Replies, Likelihoods], bool] = lambda replies, likelihoods: False,
) -> tuple[Replies, Likelihoods]:
    """What everybody says, and with `options` how likely they find those, one after the other.

    `looks`: after so many prompts everybody has been asked, and it ends where all `is_clear`.
    Raises GraftlabError where a reply cannot be had; those before it are in the cache.
    """
    asked = len(prompts) * (draws + options)
    began, tokens = time.perf_counter(), 0
    replies: Replies = {speaker.name: [] for speaker in speakers}
    likelihoods: Likelihoods = {speaker.name: [] for speaker in speakers} if options else {}
    with Progress("replies", total=asked * len(speakers), console=console) as progress:

        def report(count: int, drawn: int) -> None:
            nonlocal tokens
            tokens += drawn
            speed = tokens / (time.perf_counter() - began)
            progress.advance(count, note=f"{speaker.name}, {speed:.0f} tokens/s")

        for start, end in pairwise([0, *looks, len(prompts)]):
            some = prompts[start:end]
            for speaker in speakers:
                replies[speaker.name] += speaker.replies(some, draws=draws, report=report)
                if options:
                    likelihoods[speaker.name] += speaker.options(some, report)
            if end < len(prompts) and is_clear(replies, likelihoods):
                break
    return replies, likelihoods


def score_all(
    metrics: Mapping[str, Metric],
    prompts: Sequence[Prompt],
    replies: Replies,
    likelihoods: Likelihoods,
    training: Callable[[], Iterable[Conversation]],
) -> dict[str, dict[str, list[list[Judged]]]]:
    """Model -> metric -> scores of each draw of each prompt."""
    places = [
        (model, place)
        for model, by_prompt in replies.items()
        for place, draws in enumerate(by_prompt)
        for _ in draws
    ]
    cases = [
        Case(prompt, said, likelihoods[model][place] if likelihoods else ())
        for model, by_prompt in replies.items()
        for place, (prompt, draws) in enumerate(zip(prompts, by_prompt, strict=True))
        for said in draws
    ]
    found: dict[str, dict[str, list[list[Judged]]]] = {
        model: {name: [[] for _ in prompts] for name in metrics} for model in replies
    }
    for name, metric in metrics.items():
        scored = metric.score_all(cases, training)
        for (model, place), scores in zip(places, scored, strict=True):
            found[model][name][place].append(scores)
    return found
