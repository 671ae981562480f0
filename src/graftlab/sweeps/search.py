"""What to try next: random, TPE or a Gaussian process, by Optuna's samplers.

The sweep's own record is the one truth. Optuna keeps nothing: for every proposal its study is built
anew in memory from the trials so far, and its random numbers come from the seed and the proposal's
number. So a search that was killed proposes what it would have proposed, given the same trials.

    state       in Optuna     learnt from
    done        complete      the score
    pruned      pruned        the last loss (a Gaussian process takes it as the score)
    paused      pruned        the last loss; running while there is none
    failed      pruned        no loss at all: as bad as the worst
    running, waiting          held to be bad, so that nobody tries the same meanwhile

TPE: arXiv 2304.11127. Running trials: a constant liar for TPE, batched expected improvement for the
Gaussian process (arXiv 2310.20708).
"""

from __future__ import annotations

import hashlib
import math
import random
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import islice
from typing import TYPE_CHECKING, Any

from graftlab.errors import ConfigError, require_choice
from graftlab.sweeps.space import Dimension, Point, applies, check, in_order, number, walk

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.study import Study
    from optuna.trial import FrozenTrial
    from optuna.trial import Trial as OptunaTrial

METHODS = ("random", "tpe", "gp")
STATES = ("waiting", "running", "paused", "done", "failed", "pruned")
INSTALL = "pip install 'graftlab[sweep]'"
ATTEMPTS = 5
"""How often the sampler is asked again when its proposal was tried already."""
POOL = 1000
"""From how many untried points one is drawn when the sampler insists on tried ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One job of the search so far, as its record has it."""

    point: Point
    score: float | None = None
    """Best validation loss of a job that is done, in nats per trained token."""
    state: str = "running"
    losses: Mapping[int, float] = field(default_factory=dict)
    """Optimizer step -> validation loss there."""

    def __post_init__(self) -> None:
        require_choice("state", self.state, STATES)

    @property
    def last_loss(self) -> float | None:
        """The validation loss of the latest step, if it is a number."""
        loss = self.losses[max(self.losses)] if self.losses else None
        return loss if loss is not None and math.isfinite(loss) else None


def propose(
    dimensions: Sequence[Dimension],
    history: Sequence[Trial],
    *,
    method: str,
    seed: int,
    number: int,
) -> Point | None:
    """The point to try next, unlike every one in `history`; None when all were tried.

    `history` holds all jobs so far in the order of their numbers, `number` is that of the new one;
    the same arguments give the same point. Raises ConfigError for what people can mend.
    """
    require_choice("sweep.search", method, METHODS)
    check(dimensions)
    _require_scores(history, method)
    tried = {_identity(trial.point) for trial in history}
    study = _study(in_order(dimensions), history, method=method, chance=_chance(seed, number))
    for _ in range(ATTEMPTS):  # what was proposed and not taken stays in the study as running
        point = _ask(study, dimensions)
        if _identity(point) not in tried:
            return point
    if any(dimension.values() is None for dimension in dimensions):
        return point  # the search has closed in on one number of an interval
    untried = (other for other in walk(dimensions) if _identity(other) not in tried)
    pool = list(islice(untried, POOL))
    return random.Random(_chance(seed, number)).choice(pool) if pool else None


def _chance(seed: int, number: int) -> int:
    """A seed of its own for every proposal: 32 bits, as NumPy takes them."""
    digest = hashlib.sha256(f"{seed}/{number}".encode()).digest()
    return int.from_bytes(digest[:4], "big")


def _identity(point: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(point.items()))


def _require_scores(history: Sequence[Trial], method: str) -> None:
    if method != "random" and any(t.state == "done" and t.score is None for t in history):
        raise ConfigError(
            f"sweep.search={method} learns from validation losses, and these jobs have none: give "
            "data.valid=FILE, or take sweep.search=random."
        )


def _study(
    space: Sequence[Dimension], history: Sequence[Trial], *, method: str, chance: int
) -> Study:
    """A study that knows the history, with a sampler at the beginning of its random numbers."""
    optuna = _optuna(method)
    study: Study = optuna.create_study(sampler=_sampler(method, space, chance))
    if method != "random":
        study.add_trials(_told(space, history, method))
    return study


def _ask(study: Study, dimensions: Sequence[Dimension]) -> Point:
    """One proposal of the sampler, which may have been tried already."""
    asked = study.ask()
    point: Point = {}
    for dimension in in_order(dimensions):
        if applies(dimension, point):
            point[dimension.key] = _suggest(asked, dimension)
    return {d.key: point[d.key] for d in dimensions if d.key in point}


def _suggest(asked: OptunaTrial, dimension: Dimension) -> str:
    """The sampler's choice for one key, as on the command line."""
    key, low, high = dimension.key, dimension.low, dimension.high
    if dimension.choices is not None:
        if not dimension.ordered:
            return str(asked.suggest_categorical(key, dimension.choices))
        return _ranked(dimension)[asked.suggest_int(key, 0, len(dimension.choices) - 1)]
    assert low is not None
    assert high is not None
    if dimension.integer:
        step = int(dimension.step or 1)
        return dimension.text(
            asked.suggest_int(key, int(low), int(high), step=step, log=dimension.log)
        )
    return dimension.text(
        asked.suggest_float(key, low, high, step=dimension.step, log=dimension.log)
    )


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


def _distribution(dimension: Dimension) -> BaseDistribution:
    """A dimension in Optuna's terms; ordered lists by place: neighbours inform each other."""
    from optuna import distributions as d

    if dimension.choices is not None:
        if dimension.ordered:
            return d.IntDistribution(0, len(dimension.choices) - 1)
        return d.CategoricalDistribution(dimension.choices)
    low, high, step = dimension.low, dimension.high, dimension.step
    assert low is not None
    assert high is not None
    if dimension.integer:
        return d.IntDistribution(int(low), int(high), log=dimension.log, step=int(step or 1))
    return d.FloatDistribution(low, high, log=dimension.log, step=step)


def _ranked(dimension: Dimension) -> list[str]:
    return sorted(dimension.choices or (), key=lambda text: number(text) or 0.0)


def _value(dimension: Dimension, text: str) -> Any | None:
    """A text in Optuna's terms, or None where it lies outside of the dimension."""
    if dimension.choices is not None:
        if text not in dimension.choices:
            return None
        return _ranked(dimension).index(text) if dimension.ordered else text
    value = number(text)
    assert dimension.low is not None
    assert dimension.high is not None
    if value is None or not dimension.low <= value <= dimension.high:
        return None
    return int(value) if dimension.integer else value


def _told(space: Sequence[Dimension], history: Sequence[Trial], method: str) -> list[FrozenTrial]:
    """The history for Optuna, without trials that lie outside of the space as it is now."""
    from optuna.trial import TrialState, create_trial

    distributions = {d.key: _distribution(d) for d in space}
    worst = _worst(history)
    states = {"done": TrialState.COMPLETE, "pruned": TrialState.PRUNED}
    told = []
    for trial in history:
        kind, value, losses = _lesson(trial, worst, method)
        params = _params(space, trial.point)
        if params is not None:
            told.append(
                create_trial(
                    state=states.get(kind, TrialState.RUNNING),
                    value=value,
                    params=params,
                    distributions={key: distributions[key] for key in params},
                    intermediate_values=losses,
                )
            )
    return told


def _params(space: Sequence[Dimension], point: Point) -> dict[str, Any] | None:
    wanted = [d for d in space if applies(d, point)]
    if {d.key for d in wanted} != point.keys():
        return None
    params = {d.key: _value(d, point[d.key]) for d in wanted}
    return None if None in params.values() else params


def _worst(history: Sequence[Trial]) -> float:
    losses = [loss for t in history for loss in (t.score, t.last_loss) if loss is not None]
    return max((loss for loss in losses if math.isfinite(loss)), default=0.0)


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
