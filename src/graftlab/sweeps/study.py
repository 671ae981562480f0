"""A search in Optuna's terms: its study, built anew from the trials so far, and its samplers.

An ordered list or a stepped interval is seen by place, so that neighbours inform each other.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from graftlab.errors import ConfigError
from graftlab.sweeps.space import Dimension, Point, applies, as_number, in_order

if TYPE_CHECKING:
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )
    from optuna.samplers import BaseSampler
    from optuna.study import Study
    from optuna.trial import FrozenTrial
    from optuna.trial import Trial as OptunaTrial

INSTALL = "pip install 'graftlab[sweep]'"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One job of the search so far, as its record has it."""

    point: Point
    score: float | None = None
    """Best validation loss of a job that is done, in nats per trained token."""
    state: str = "running"
    """One of `jobs.STATES`."""
    losses: Mapping[int, float] = field(default_factory=dict)
    """Optimizer step -> validation loss there."""

    @property
    def last_loss(self) -> float | None:
        """The validation loss of the latest step, if it is a number."""
        loss = self.losses[max(self.losses)] if self.losses else None
        return loss if loss is not None and math.isfinite(loss) else None


def new_study(
    space: Sequence[Dimension], history: Sequence[Trial], *, method: str, chance: int
) -> Study:
    """A study that knows the history, with a sampler at the beginning of its random numbers."""
    optuna = _optuna(method)
    study: Study = optuna.create_study(sampler=_sampler(method, space, chance))
    if method != "random":
        study.add_trials(_told(space, history, method))
    return study


def ask(study: Study, dimensions: Sequence[Dimension]) -> Point:
    """One proposal of the sampler, which may have been tried already."""
    asked = study.ask()
    point: Point = {}
    for dimension in in_order(dimensions):
        if applies(dimension, point):
            point[dimension.key] = _suggest(asked, dimension)
    return {d.key: point[d.key] for d in dimensions if d.key in point}


def _suggest(asked: OptunaTrial, dimension: Dimension) -> str:
    """The sampler's choice for one key, as on the command line."""
    from optuna.distributions import CategoricalDistribution, IntDistribution

    key, drawn_from = dimension.key, _distribution(dimension)
    if isinstance(drawn_from, CategoricalDistribution):
        return str(asked.suggest_categorical(key, drawn_from.choices))
    suggest: Any = asked.suggest_float
    if isinstance(drawn_from, IntDistribution):
        suggest = asked.suggest_int
    value = suggest(key, drawn_from.low, drawn_from.high, log=drawn_from.log)
    return _at(dimension, value) if _places(dimension) else dimension.text(value)


def _sampler(method: str, space: Sequence[Dimension], chance: int) -> BaseSampler:
    from optuna import samplers
    from optuna.exceptions import ExperimentalWarning

    if method == "random":
        return samplers.RandomSampler(seed=chance)
    if method == "gp":
        return samplers.GPSampler(seed=chance, warn_independent_sampling=False)
    with warnings.catch_warnings():
        # Grouping by condition is what makes TPE see conditional keys together with the others.
        warnings.simplefilter("ignore", ExperimentalWarning)
        return samplers.TPESampler(seed=chance, group=any(d.when for d in space))


def _distribution(
    dimension: Dimension,
) -> CategoricalDistribution | FloatDistribution | IntDistribution:
    """A dimension in Optuna's terms."""
    from optuna import distributions as d

    if places := _places(dimension):
        return d.IntDistribution(0, places - 1)
    if dimension.choices is not None:
        return d.CategoricalDistribution(dimension.choices)
    low, high = dimension.ends
    if dimension.integer:
        return d.IntDistribution(int(low), int(high), log=dimension.log)
    return d.FloatDistribution(low, high, log=dimension.log)


def _places(dimension: Dimension) -> int:
    """How many places an ordered list or a stepped interval has; Optuna sees them by number, so
    that neighbours inform each other. 0 for every other dimension.
    """
    if dimension.choices is not None:
        return len(dimension.choices) if dimension.ordered else 0
    return 0 if dimension.step is None else dimension.count(dimension.step)


def _at(dimension: Dimension, place: int) -> str:
    if dimension.choices is not None:
        return _ranked(dimension.choices)[place]
    assert dimension.step is not None
    return dimension.text(dimension.ends[0] + place * dimension.step)


@cache
def _ranked(choices: tuple[str, ...]) -> list[str]:
    return sorted(choices, key=lambda text: as_number(text) or 0.0)


def _value(dimension: Dimension, text: str) -> Any | None:
    """A text in Optuna's terms, or None where it lies outside of the dimension."""
    if dimension.choices is not None:
        if text not in dimension.choices:
            return None
        return _ranked(dimension.choices).index(text) if dimension.ordered else text
    value, (low, high) = as_number(text), dimension.ends
    if value is None or not low <= value <= high:
        return None
    if dimension.step is not None:
        place = round((value - low) / dimension.step)
        return place if _at(dimension, place) == text else None
    return int(value) if dimension.integer else value


def _told(space: Sequence[Dimension], history: Sequence[Trial], method: str) -> list[FrozenTrial]:
    """The history for Optuna, without trials that lie outside of the space as it is now."""
    from optuna.trial import TrialState, create_trial

    distributions = {d.key: _distribution(d) for d in space}
    losses = [loss for t in history for loss in (t.score, t.last_loss) if loss is not None]
    worst = max((loss for loss in losses if math.isfinite(loss)), default=0.0)
    states = {"done": TrialState.COMPLETE, "pruned": TrialState.PRUNED}
    told = []
    for trial in history:
        kind, value, told_losses = _lesson(trial, worst, method)
        params = _params(space, trial.point)
        if params is not None:
            told.append(
                create_trial(
                    state=states.get(kind, TrialState.RUNNING),
                    value=value,
                    params=params,
                    distributions={key: distributions[key] for key in params},
                    intermediate_values=told_losses,
                )
            )
    return told


def _params(space: Sequence[Dimension], point: Point) -> dict[str, Any] | None:
    wanted = [d for d in space if applies(d, point)]
    if {d.key for d in wanted} != point.keys():
        return None
    params = {d.key: _value(d, point[d.key]) for d in wanted}
    return None if None in params.values() else params


def _lesson(trial: Trial, worst: float, method: str) -> tuple[str, float | None, dict[int, float]]:
    """What a trial teaches: kind (done, pruned or running), value, and losses on the way."""
    state, score, last = trial.state, trial.score, trial.last_loss
    if state == "done" and score is not None and math.isfinite(score):
        return "done", score, {}
    if state in ("running", "waiting") or (state == "paused" and last is None):
        return "running", None, {}
    known = state in ("pruned", "paused") and last is not None
    if method == "gp":  # which looks at complete trials alone
        return "done", last if known else worst, {}
    return "pruned", None, {max(trial.losses): last} if known and last is not None else {}


def _optuna(method: str) -> Any:
    """Optuna, told to be quiet. Raises ConfigError with the line that installs what is missing."""
    needed = ["optuna", *(["scipy"] if method == "gp" else [])]
    missing = [name for name in needed if find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"sweep.search={method} needs {' and '.join(missing)}: {INSTALL}, or take "
            "sweep.search=grid."
        )
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
