"""Which key matters: Optuna's evaluators over the runs, as if a study had made them.

fANOVA (Hutter et al. 2014) says how much of the score's variance each key explains over the whole
space; PED-ANOVA (arXiv 2304.10255) how much it takes to be among the best. Both count points, so
that replicates do not weigh double.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from graftlab.reports.compare import Point
from graftlab.reports.values import is_number, written

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

LEAST = 8
"""Fewer points than this, or than `LEAST_PER_KEY` for each key, say nothing."""
LEAST_PER_KEY = 3
LEAST_BEST = 50
"""Points from which the best tenth is enough to be looked at."""


@dataclass(frozen=True, slots=True)
class Importance:
    """Shares by key, largest first, each summing to one; or why there are none."""

    explained: dict[str, float] = field(default_factory=dict)
    """fANOVA: share of the variance."""
    best: dict[str, float] = field(default_factory=dict)
    """PED-ANOVA: share in being among the best tenth; needs more points."""
    note: str | None = None

    def ranked(self, keys: Sequence[str]) -> list[str]:
        """`keys`, the one that explains most first; in their order where nothing is known."""
        return sorted(keys, key=lambda key: -self.explained.get(key, 0.0))


def importance(points: Sequence[Point], keys: Sequence[str]) -> Importance:
    """The importance of `keys` over `points`; never raises for too few or for missing extras."""
    if not keys:
        return Importance(note="Nothing was varied, so nothing is important.")
    wanted = max(LEAST, LEAST_PER_KEY * len(keys))
    if len(points) < wanted:
        return Importance(
            note=f"Too few runs: {len(points)} finished configurations, and {len(keys)} "
            f"keys need at least {wanted} to tell which of them matters."
        )
    if len({point.interval.mean for point in points}) == 1:
        return Importance(note="Every configuration has the same score: no key matters.")
    missing = [name for name in ("optuna", "sklearn") if find_spec(name) is None]
    if missing:
        return Importance(note="Needs Optuna and scikit-learn: pip install 'graftlab[report]'.")
    return _evaluated(points, keys)


def _evaluated(points: Sequence[Point], keys: Sequence[str]) -> Importance:
    import optuna
    from optuna.importance import (
        FanovaImportanceEvaluator,
        PedAnovaImportanceEvaluator,
        get_param_importances,
    )

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    columns = {key: _column([point.runs[0].value(key) for point in points]) for key in keys}
    axes = {key: _distribution(values) for key, values in columns.items()}
    study = optuna.create_study(direction="minimize")
    study.add_trials(
        [
            optuna.trial.create_trial(
                params={key: column[n] for key, column in columns.items()},
                distributions=axes,
                value=point.interval.mean,
            )
            for n, point in enumerate(points)
        ]
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of scores that are all alike, which the numbers say too
        explained = get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0))
        best = {}
        if len(points) >= LEAST_BEST:
            best = get_param_importances(study, evaluator=PedAnovaImportanceEvaluator())
    return Importance(explained=_plain(explained), best=_plain(best))


def _plain(shares: dict[str, float]) -> dict[str, float]:
    return {key: float(share) for key, share in shares.items()}


def _column(values: Sequence[Any]) -> list[Any]:
    """Numbers, or else names."""
    return list(map(float if all(map(is_number, values)) else written, values))


def _distribution(values: Sequence[Any]) -> BaseDistribution:
    """A range of numbers, on a log scale where they span a decade; else a set of names."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if isinstance(values[0], float):
        low, high = min(values), max(values)
        return FloatDistribution(low, high, log=low > 0 and high >= 10 * low)
    return CategoricalDistribution(sorted(set(values)))
