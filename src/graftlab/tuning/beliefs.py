"""What is believed of every cell of a grid, from the losses of those that were trained.

The held-out loss of a run of t steps is taken to be a power law with a term for overfitting, whose
coefficients change smoothly over the configurations x (learning rate, rank, ...):

    loss(x, t) = c(x) + a(x) (t / T)^-b + d(x) t / T        T: the longest run

The power law is the family `pow3` of Domhan et al. (IJCAI 2015; arXiv 2103.10948 surveys such
families); the last term is ours, for small data whose held-out loss rises again.
c, a and d have Gaussian-process priors (Matérn 5/2 over the logarithm of each number), as in
freeze-thaw optimisation (arXiv 1406.3896) with this curve in place of its exponential. So the loss
of all cells is jointly normal for given b, length scales and noise, and those are averaged over by
their marginal likelihood instead of being chosen: few runs give wide intervals.

A loss is measured from the best one seen, in units of what the base loses against it, cut off at
the base's own (a diverged run says no more than that), and bent by a logarithm. A stronger bend
made the stated intervals too narrow: a valley that deepens with the steps is not smooth under it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING

from graftlab.tuning.space import LR, RANK, Axis, Cell, Space

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

BEND = 1.0
"""Of the span between best and base: below it differences count as they are, above by ratio."""
EXPONENTS = (0.3, 1.0)
SCALES = (0.15, 0.4, 1.0)
"""Deviations of c(x) over the configurations; of d(x) a third of it."""
SPEEDS = (0.3, 1.0)
"""Deviations of a(x), how fast configurations learn, as shares of that of c(x)."""
LENGTHS = (1.0, 2.0, 4.0)
"""Length scales in the logarithm: 1 is a factor of e."""
LEANS = (0.0, 0.75)
"""How far a doubled rank shifts the valley to lower learning rates: lr * rank^lean stays. With
alpha given as a multiple of the rank, an update grows with it (arXiv 2312.03732)."""
NOISES = (0.004, 0.02)
"""Deviations of a single cell from the smooth surface, chance of data order and seed included."""
DRAWS = 4000
NAMES_ALIKE = 0.6
"""Correlation between two values of a key that have names, not numbers."""


@dataclass(frozen=True, slots=True)
class Beliefs:
    """Losses of all cells of the grid, as draws from what is believed."""

    cells: list[Cell]
    draws: Array
    """(draws, cells), in the unit of the losses."""

    @property
    def means(self) -> dict[Cell, float]:
        """The median of each cell: draws of bad cells have long tails."""
        import numpy as np

        middle = np.median(self.draws, axis=0)
        return {cell: float(loss) for cell, loss in zip(self.cells, middle, strict=True)}

    def regret(self, cell: Cell) -> Array:
        """(draws,) How much better the best cell of the grid is."""
        own: Array = self.draws[:, self.cells.index(cell)]
        best: Array = self.draws.min(axis=1)
        return own - best


def believe(space: Space, seen: Mapping[Cell, float], *, base: float, seed: int = 0) -> Beliefs:
    """Draws of the losses of `space.cells` given those seen; less is better.

    `base` is the loss without training. A cell that was seen has its loss in every draw. Losses
    that are no numbers count as the base's. Raises ValueError where nothing was seen.
    """
    import numpy as np

    if not seen:
        raise ValueError("nothing was trained")
    rng = np.random.default_rng(seed)
    known = list(seen)
    unit = _Unit.of(seen, base)
    y = np.array([unit.bent(seen[cell]) for cell in known])
    cells = [*known, *(cell for cell in space.cells if cell not in seen)]
    grids = list(product(EXPONENTS, SCALES, SPEEDS, LENGTHS, space.leans(LEANS), NOISES))
    prior = _Prior.of(space, cells)
    fits = [_Fit.of(prior, y, *hyper) for hyper in grids]
    evidence = np.array([fit.evidence for fit in fits])
    weights = np.exp(evidence - evidence.max())
    counts = rng.multinomial(DRAWS, weights / weights.sum())
    drawn = [fit.draw(int(n), rng) for fit, n in zip(fits, counts, strict=True) if n]
    losses = unit.straight(np.concatenate(drawn))
    places = {cell: place for place, cell in enumerate(cells)}
    return Beliefs(space.cells, losses[:, [places[cell] for cell in space.cells]])


@dataclass(frozen=True, slots=True)
class _Unit:
    """Losses as the model has them, and back."""

    best: float
    span: float

    @classmethod
    def of(cls, seen: Mapping[Cell, float], base: float) -> _Unit:
        finite = [loss for loss in seen.values() if math.isfinite(loss)]
        best = min(finite, default=base)
        worst = base if base > best else max(finite)  # where training only makes it worse
        return cls(best, max(worst - best, 1e-6 * abs(best), 1e-9))

    def bent(self, loss: float) -> float:
        share = (loss - self.best) / self.span if math.isfinite(loss) else 1.0
        return math.log1p(min(1.0, share) / BEND)

    def straight(self, bent: Array) -> Array:
        import numpy as np

        # Below the best the bend goes on as a straight line: nothing is believed endlessly good.
        share = BEND * np.where(bent < 0, bent, np.expm1(np.minimum(bent, 20.0)))
        loss: Array = self.best + self.span * np.minimum(share, 1.0)
        return loss


@dataclass(frozen=True, slots=True)
class _Prior:
    """What the covariance of cells is made of, computed once for all hyperparameters."""

    apart: list[tuple[Array, bool]]
    """For each key the differences between cells, and whether its values are names."""
    rate: int | None
    """Which of them is the learning rate's."""
    rank: int | None
    """And which the rank's."""
    time: Array
    """(cells,) Shares of the longest run."""

    @classmethod
    def of(cls, space: Space, cells: Sequence[Cell]) -> _Prior:
        import numpy as np

        columns = zip(*(cell.config for cell in cells), strict=True)
        apart = [_apart(axis, column) for axis, column in zip(space.axes, columns, strict=True)]
        keys = [axis.key for axis in space.axes]
        rate, rank = (keys.index(key) if key in keys else None for key in (LR, RANK))
        return cls(apart, rate, rank, np.array([cell.steps / space.longest for cell in cells]))

    def first(self, n: int) -> _Prior:
        """The same of the first `n` cells alone."""
        apart = [(d[:n, :n], named) for d, named in self.apart]
        return replace(self, apart=apart, time=self.time[:n])

    def covariance(
        self, exponent: float, scale: float, speed: float, length: float, lean: float
    ) -> Array:
        """(cells, cells), without the noise."""
        import numpy as np

        alike = np.ones((len(self.time), len(self.time)))
        for place, (apart, named) in enumerate(self.apart):
            if lean and place == self.rate and self.rank is not None:
                apart = apart + lean * self.apart[self.rank][0]
            alike = alike * (
                np.where(apart == 0, 1.0, NAMES_ALIKE) if named else _matern(np.abs(apart) / length)
            )
        falls = self.time**-exponent - 1
        rises = self.time - 1
        c, a, d = scale**2 * alike, (scale * speed) ** 2 * alike, (scale / 3) ** 2 * alike
        found: Array = (
            (4.0 + c) + np.outer(falls, falls) * (1.0 + a) + np.outer(rises, rises) * (0.25 + d)
        )
        return found


def _apart(axis: Axis, values: Sequence[str]) -> tuple[Array, bool]:
    """Differences between cells along one key, and whether it has names."""
    import numpy as np

    places = axis.places
    where = dict(zip(axis.values, places or range(len(axis.values)), strict=True))
    at = np.array([float(where[value]) for value in values])
    return at[:, None] - at[None, :], places is None


def _matern(distance: Array) -> Array:
    import numpy as np

    far = math.sqrt(5) * distance
    found: Array = (1 + far + far**2 / 3) * np.exp(-far)
    return found


@dataclass(frozen=True, slots=True)
class _Fit:
    """The posterior for one set of hyperparameters; the first cells are those that were seen."""

    evidence: float
    """Logarithm of the marginal likelihood."""
    y: Array
    prior: _Prior
    hyper: tuple[float, ...]

    @classmethod
    def of(cls, prior: _Prior, y: Array, *hyper: float) -> _Fit:
        import numpy as np

        *shape, noise = hyper
        n = len(y)
        own = prior.first(n).covariance(*shape) + noise**2 * np.eye(n)
        root = np.linalg.cholesky(own)
        white = np.linalg.solve(root, y)
        evidence = -0.5 * float(white @ white) - float(np.log(np.diag(root)).sum())
        return cls(evidence, y, prior, hyper)

    def draw(self, count: int, rng: np.random.Generator) -> Array:
        """(count, cells) Losses of all cells, bent; of those seen as they were."""
        import numpy as np

        *shape, noise = self.hyper
        whole = self.prior.covariance(*shape)
        whole[np.diag_indices_from(whole)] += noise**2
        n = len(self.y)
        gain = np.linalg.solve(whole[:n, :n], whole[:n, n:])
        mean = gain.T @ self.y
        left = whole[n:, n:] - whole[n:, :n] @ gain
        root = np.linalg.cholesky(left + 1e-9 * np.eye(len(mean)))
        others = mean + rng.standard_normal((count, len(mean))) @ root.T
        return np.hstack([np.broadcast_to(self.y, (count, n)), others])
