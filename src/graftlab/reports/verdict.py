"""Is one configuration better than another? Means, intervals, and how many seeds would settle it.

A *point* is a configuration without its seed; its scores are those of its replicates, by seed.
Lower is better. Two points are compared over the seeds they share (paired: data order and
initialisation are common to both, so their noise cancels), else by Welch's test. A point of one
seed against one of several is given the spread of the other.

The lowest mean is called the winner only if its interval keeps apart from every rival's at 95 %.
That needs no correction for their number: to win, all comparisons must hold, and testing the best
against each of the others at the level of one test is not too bold (Gutmann & Maymin 1987, "Is the
selected population the best?").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, sqrt
from statistics import NormalDist, fmean, stdev

from graftlab.statistics import t_quantile

LEVEL = 0.95
POWER = 0.8
MOST_SEEDS = 1000
"""Beyond this many seeds a difference counts as none that anybody could settle."""

Scores = Mapping[int, float]
"""Seed -> score of one replicate."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean with the range that holds the true one at `LEVEL`; the range is None of one value."""

    mean: float
    low: float | None
    high: float | None
    n: int

    @property
    def half(self) -> float | None:
        """Half the width, as in mean ± half."""
        return None if self.low is None else self.mean - self.low


@dataclass(frozen=True, slots=True)
class Contrast:
    """The difference of two points, second minus first: positive where the first is better."""

    difference: Interval
    method: str
    """paired, welch, borrowed (one has a single run, and is given the spread of the other), or
    single: one run each, and so no measure of chance."""
    seeds: int | None
    """Seeds for each point that would settle a difference of this size (power 0.8); None where
    nothing is known of the spread, or more than `MOST_SEEDS` would be needed."""

    @property
    def better(self) -> bool:
        """Whether the first is better by more than chance."""
        return self.difference.low is not None and self.difference.low > 0


@dataclass(frozen=True, slots=True)
class Verdict:
    """The point with the lowest mean, and what keeps it from being called the winner."""

    best: int
    """Its place among the points that were given."""
    rivals: dict[int, Contrast]
    """Every other point against it: its place -> the comparison."""

    @property
    def open(self) -> dict[int, Contrast]:
        """The rivals that cannot be told apart from the best."""
        return {place: found for place, found in self.rivals.items() if not found.better}

    @property
    def wins(self) -> bool:
        """Whether the best may be called the winner."""
        return bool(self.rivals) and not self.open


def interval(values: Sequence[float]) -> Interval:
    """Mean and `LEVEL` interval of independent values (at least one), by Student's t."""
    mean = fmean(values)
    if len(values) < 2:
        return Interval(mean, None, None, len(values))
    half = t_quantile((1 + LEVEL) / 2, len(values) - 1) * stdev(values) / sqrt(len(values))
    return Interval(mean, mean - half, mean + half, len(values))


def compare(first: Scores, second: Scores) -> Contrast:
    """`second` minus `first`, by the best of the methods that their seeds allow."""
    shared = sorted(first.keys() & second.keys())
    if len(shared) >= 2:
        differences = [second[seed] - first[seed] for seed in shared]
        found = interval(differences)
        seeds = _seeds(found.mean, stdev(differences), groups=1)
        return Contrast(found, "paired", seeds)
    mean = fmean(second.values()) - fmean(first.values())
    if max(len(first), len(second)) < 2:
        return Contrast(Interval(mean, None, None, 1), "single", None)
    if min(len(first), len(second)) < 2:
        return _borrowed(max(first, second, key=len), mean)
    return _welch(list(first.values()), list(second.values()), mean)


def verdict(points: Sequence[Scores]) -> Verdict | None:
    """The best of these points by its mean, compared with each of the others; None of no point."""
    if not points:
        return None
    means = [fmean(point.values()) for point in points]
    best = means.index(min(means))
    rivals = {
        place: compare(points[best], point) for place, point in enumerate(points) if place != best
    }
    return Verdict(best, rivals)


def seeds_to_settle(found: Verdict) -> int | None:
    """Seeds for every point after which the best would be told apart from all its rivals.

    None where that is not known, or out of reach, for one of them.
    """
    needed = [rival.seeds for rival in found.open.values()]
    known = [seeds for seeds in needed if seeds is not None]
    return max(known) if known and len(known) == len(needed) else None


def _welch(first: Sequence[float], second: Sequence[float], mean: float) -> Contrast:
    """Unequal variances, degrees of freedom after Welch and Satterthwaite."""
    parts = [stdev(values) ** 2 / len(values) for values in (first, second)]
    n = min(len(first), len(second))
    spread = sqrt(stdev(first) ** 2 + stdev(second) ** 2)
    seeds = _seeds(mean, spread, groups=2)
    if sum(parts) == 0:
        return Contrast(Interval(mean, mean, mean, n), "welch", seeds)
    df = sum(parts) ** 2 / sum(
        part**2 / (len(values) - 1) for part, values in zip(parts, (first, second), strict=True)
    )
    half = t_quantile((1 + LEVEL) / 2, df) * sqrt(sum(parts))
    return Contrast(Interval(mean, mean - half, mean + half, n), "welch", seeds)


def _borrowed(several: Scores, mean: float) -> Contrast:
    """One value against the mean of several, as if all had the spread of the several."""
    n, spread = len(several), stdev(several.values())
    half = t_quantile((1 + LEVEL) / 2, n - 1) * spread * sqrt(1 + 1 / n)
    seeds = _seeds(mean, sqrt(2) * spread, groups=2)
    return Contrast(Interval(mean, mean - half, mean + half, 1), "borrowed", seeds)


def _seeds(difference: float, spread: float, *, groups: int) -> int | None:
    """The least n at which a two-sided test finds a `difference` with probability `POWER`.

    The usual n = ((t + t') spread / difference)², with both quantiles at n's own degrees of
    freedom; within one seed of the noncentral t.
    """
    if difference == 0:
        return None
    ratio = spread / abs(difference)
    z = NormalDist().inv_cdf
    first = ((z((1 + LEVEL) / 2) + z(POWER)) * ratio) ** 2
    if first > MOST_SEEDS:
        return None
    n = max(2, ceil(first))  # the normal quantiles are the smaller ones: never too far
    while n < (_detectable(groups * (n - 1)) * ratio) ** 2:
        n += 1
    return n


def _detectable(df: int) -> float:
    """How many standard errors a difference must measure to be found with `POWER`."""
    return t_quantile((1 + LEVEL) / 2, df) + t_quantile(POWER, df)
