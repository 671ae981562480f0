"""When to stop asking: when every comparison that was asked for has a verdict that holds."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING

from graftlab.errors import ConfigError
from graftlab.evaluation.anytime import anytime_p
from graftlab.evaluation.verdicts import LEVEL, holm, paired

if TYPE_CHECKING:
    from graftlab.evaluation.metrics.base import Measure
    from graftlab.evaluation.results import Name, Results
    from graftlab.generation.prompts import Prompt

GROWTH = 0.1
"""Each look waits for so many more prompts, as a share of those before."""


def shuffled(prompts: Sequence[Prompt], *, seed: int) -> list[Prompt]:
    """In a random order: what is asked first must be like what would be asked last."""
    return random.Random(seed).sample(list(prompts), len(prompts))


def looks(count: int, *, batch: int) -> list[int]:
    """After how many prompts of `count` everybody is compared; the last is no look."""
    found, after = [], batch
    while after < count:
        found.append(after)
        after += max(batch, int(after * GROWTH) // batch * batch)
    return found


def check_deciding(by: Sequence[str], measures: Mapping[Name, Measure]) -> None:
    """Raise ConfigError for a name in `by` that is of nothing judged, or if nothing is."""
    judged = [name for name, measure in measures.items() if measure.better is not None]
    known = sorted({known for name in judged for known in _names(name)})
    if not judged:
        raise ConfigError(
            "sequential=true needs a measure by which a model is better: none of the metrics has "
            "one."
        )
    for one in by:
        if one not in known:
            raise ConfigError(f"decides={one} is none of {', '.join(known)}.")


def is_clear(found: Results, by: Sequence[str], *, preferences: int = 0) -> bool:
    """Whether every two models that differ anywhere are told apart, by the measures in `by` (all
    that are judged where it is empty), and some are. All comparisons count in the correction,
    those by so many kinds of `preferences` that are asked for later, too.
    """
    p_values, watched = [], []
    for first, second in combinations(found.replies, 2):
        p_values += [1.0] * preferences
        watched += [False] * preferences
        for name, measure in found.measures.items():
            if measure.better is None:
                continue
            pairs = paired(found.values(first, name), found.values(second, name))
            differences = [other - one for one, other in pairs]
            p_values.append(anytime_p(differences, share=measure.share))
            watched.append(any(differences) and (not by or not _names(name).isdisjoint(by)))
    settled = [p <= 1 - LEVEL for p, own in zip(holm(p_values), watched, strict=True) if own]
    return bool(settled) and all(settled)


def _names(name: Name) -> set[str]:
    """What a measure is called: `exact-match`, `exact-match.pct_exact`."""
    metric = name[0].replace("_", "-")
    return {metric, f"{metric}.{name[1]}"}
