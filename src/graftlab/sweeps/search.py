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
import random
from collections.abc import Collection, Sequence
from itertools import islice
from typing import TYPE_CHECKING

from graftlab.errors import ConfigError
from graftlab.sweeps.space import Dimension, Key, Point, check, in_order, key_of, walk
from graftlab.sweeps.study import Trial, ask, new_study

if TYPE_CHECKING:
    from optuna.study import Study

ATTEMPTS = 5
"""How often the sampler is asked again when its proposal was tried already."""
POOL = 1000
"""From how many untried points one is drawn, or how often, when the sampler insists on old ones."""


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
    check(dimensions)
    if method != "random" and any(t.state == "done" and t.score is None for t in history):
        raise ConfigError(
            f"sweep.search={method} learns from validation losses, and these jobs have none: give "
            "data.valid=FILE, or take sweep.search=random."
        )
    tried = {key_of(trial.point) for trial in history}
    space, chance = in_order(dimensions), _chance(seed, number)
    study = new_study(space, history, method=method, chance=chance)
    if (point := _fresh(study, dimensions, tried, attempts=ATTEMPTS)) is not None:
        return point
    if any(dimension.values() is None for dimension in dimensions):
        blind = new_study(space, (), method="random", chance=chance)
        return _fresh(blind, dimensions, tried, attempts=POOL)
    untried = (other for other in walk(dimensions) if key_of(other) not in tried)
    pool = list(islice(untried, POOL))
    return random.Random(chance).choice(pool) if pool else None


def _fresh(
    study: Study, dimensions: Sequence[Dimension], tried: Collection[Key], *, attempts: int
) -> Point | None:
    """The first of so many proposals that was not tried; the others stay in the study as running,
    so that the next is another.
    """
    for _ in range(attempts):
        point = ask(study, dimensions)
        if key_of(point) not in tried:
            return point
    return None


def _chance(seed: int, number: int) -> int:
    """A seed of its own for every proposal: 32 bits, as NumPy takes them."""
    digest = hashlib.sha256(f"{seed}/{number}".encode()).digest()
    return int.from_bytes(digest[:4], "big")
