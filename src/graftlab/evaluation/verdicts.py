"""What of a difference is no chance: intervals, paired tests, and how many prompts would settle it.

A *value* is a prompt's score, the mean over its draws: prompts are what was sampled, so the draws'
own spread is in the values, and resampling prompts takes both into account (Davison & Hinkley 1997,
Bootstrap Methods and their Application, 3.8). Two models are compared over the prompts that both
have a value of.

    values        mean                                     difference of two models, paired
    0 or 1        Wilson 1927                              Newcombe 1998, method 10; exact McNemar
    numbers       expanded percentile bootstrap            the same; sign-flip permutation
                  (Hesterberg, arXiv 1411.5279, 5.3)       (Fisher 1935, The Design of Experiments)

The p-values of all comparisons by measures with a better end are adjusted together (Holm 1979): the
chance that any one of them is called better or worse where there is no difference is at most 5 %.
Comparisons in which too few prompts differ for any p-value below that do not count among them: the
tests are conditional on how many differ, so leaving them out is fair (Tarone 1990, Biometrics 46).
Intervals are not adjusted. Everything drawn has a fixed seed: the same replies, the same verdicts.

Where asking stops as soon as the verdict is clear, all of these would find too much; the tests and
the intervals of differences are then those of `anytime`, all comparisons counting.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, comb, exp, inf, log, log2, sqrt
from statistics import NormalDist, fmean
from typing import TYPE_CHECKING, Any

from graftlab.evaluation.anytime import anytime_p, confidence_sequence
from graftlab.statistics import t_quantile, wilson_interval

if TYPE_CHECKING:
    from numpy.typing import NDArray

LEVEL = 0.95
POWER = 0.8
RESAMPLES = 5000
FLIPS = 10_000
ENUMERATED = 13
"""Up to so many differences that are not zero, all their signs are gone through."""
MOST_PROMPTS = 100_000
"""A difference that would take more is none that anybody could settle."""
BETTING = "betting"
_PIECE = 2**22

Values = Sequence[float | None]
"""A value for each prompt; None where the measure says nothing of it."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean with the range that holds the true one at `LEVEL`, over `n` prompts."""

    mean: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, slots=True)
class Contrast:
    """Second minus first, over the prompts that both have a value of."""

    difference: Estimate
    p: float
    """Two-sided, of no difference; not adjusted."""
    method: str
    """mcnemar, sign-flip, or betting where asking may have stopped early"""
    spread: float
    """Standard deviation of a prompt's difference."""
    moved: int
    """Prompts on which the two differ."""

    @property
    def can_be_settled(self) -> bool:
        """Whether so many prompts differ that they could all do so by chance less than 1 in 20.

        Always of a test by betting: how many there are depends on when it stopped.
        """
        return self.method == BETTING or 2.0 / 2.0**self.moved <= 1 - LEVEL

    def more_prompts(self, level: float) -> int | None:
        """How many more would settle a difference of this size at that level, with `POWER`.

        None where none was seen, or more than `MOST_PROMPTS` would be needed.
        """
        size = abs(self.difference.mean)
        if size == 0:
            return None
        z, n = NormalDist().inv_cdf, self.difference.n
        wanted = (z(1 - level / 2) + z(POWER)) ** 2
        if self.method == BETTING:  # the capital grows by exp(size**2 / (2 spread**2)) a prompt
            wanted = 2 * (log(2 / level) + 1.5)
        # Even if all that differ do so in one way, there must be enough of them.
        least = ceil(log2(2 / level)) * n / self.moved
        needed = max(wanted * (self.spread / size) ** 2, least)
        return None if needed > MOST_PROMPTS else max(1, ceil(needed) - n)


def estimate(values: Values, *, share: bool = False) -> Estimate | None:
    """Mean and interval; None where no prompt has a value. A `share` is of what is 0 or 1."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    mean = fmean(known)
    if share and _is_binary(known):
        low, high = wilson_interval(sum(known), len(known), LEVEL)
        return Estimate(mean, low, high, len(known))
    return Estimate(mean, *_bootstrap(known), len(known))


def contrast(
    first: Values,
    second: Values,
    *,
    share: bool = False,
    anytime: bool = False,
    most: float | None = None,
) -> Contrast | None:
    """`second` minus `first`; None where they have no prompt in common.

    `anytime`: prompts are in the order in which they were asked, and asking may have stopped for
    what was seen. Values then have an interval if they are known to lie between 0 and `most`.
    """
    pairs = paired(first, second)
    if not pairs:
        return None
    differences = [other - one for one, other in pairs]
    mean, n = fmean(differences), len(pairs)
    spread = sqrt(sum((d - mean) ** 2 for d in differences) / max(n - 1, 1))
    if anytime:
        low, high = -inf, inf
        if most is not None:
            low, high = confidence_sequence(differences, most=most, level=LEVEL)
        p, method = anytime_p(differences, share=share), BETTING
    elif share and _is_binary([value for pair in pairs for value in pair]):
        gained = sum(d > 0 for d in differences)
        lost = sum(d < 0 for d in differences)
        both = sum(one == other == 1 for one, other in pairs)
        low, high = newcombe(both=both, gained=gained, lost=lost, n=n)
        p, method = mcnemar(gained, lost), "mcnemar"
    else:
        low, high = _bootstrap(differences)
        p, method = sign_flip(differences), "sign-flip"
    moved = sum(d != 0 for d in differences)
    return Contrast(Estimate(mean, low, high, n), p, method, spread, moved)


def paired(first: Values, second: Values) -> list[tuple[float, float]]:
    """The values of the prompts that both have one of, in their order."""
    return [
        (one, other)
        for one, other in zip(first, second, strict=True)
        if one is not None and other is not None
    ]


def mcnemar(gained: int, lost: int) -> float:
    """Exact two-sided p-value of the prompts on which only one of two models is right."""
    n = gained + lost
    tail = sum(comb(n, k) for k in range(min(gained, lost) + 1))
    return float(min(1.0, 2 * tail / 2**n))


def newcombe(*, both: int, gained: int, lost: int, n: int) -> tuple[float, float]:
    """Bounds of the difference of two paired shares, second minus first.

    Method 10 of Newcombe (1998), Statistics in Medicine 17, 2635-2650: Wilson's intervals of each
    share, put together with their correlation.
    """
    neither = n - both - gained - lost
    first, second = (both + lost) / n, (both + gained) / n
    low1, high1 = wilson_interval(both + lost, n, LEVEL)
    low2, high2 = wilson_interval(both + gained, n, LEVEL)
    margins = (both + lost) * (gained + neither) * (both + gained) * (lost + neither)
    product = float(both * neither - gained * lost)
    if product > 0:
        product = max(product - n / 2, 0.0)
    phi = product / sqrt(margins) if margins else 0.0
    difference = second - first
    below = _hypotenuse(second - low2, high1 - first, phi)
    above = _hypotenuse(high2 - second, first - low1, phi)
    return difference - below, difference + above


def _hypotenuse(one: float, other: float, phi: float) -> float:
    return sqrt(max(one**2 - 2 * phi * one * other + other**2, 0))


def sign_flip(differences: Sequence[float]) -> float:
    """Two-sided p-value of a mean of zero: how often random signs give a mean as far away.

    Exact for few differences, else by `FLIPS` draws, the observed signs counting as one. What is
    rarer than draws can tell has Hoeffding's bound (1963, JASA 58): many comparisons need that.
    """
    import numpy as np

    moved = np.array([d for d in differences if d != 0], dtype=np.float64)
    if not len(moved):
        return 1.0
    seen = abs(moved.sum()) * (1 - 1e-9)
    if len(moved) <= ENUMERATED:
        numbers = np.arange(2 ** len(moved))[:, None]
        signs = 1.0 - 2.0 * (numbers >> np.arange(len(moved)) & 1)
        return float((np.abs(signs @ moved) >= seen).mean())
    random = np.random.default_rng(0)
    as_far, left, width = 1, FLIPS, -(-len(moved) // 8)
    while left > 0:
        count = min(left, max(1, _PIECE // len(moved)))
        drawn = np.frombuffer(random.bytes(count * width), dtype=np.uint8)
        flipped = np.unpackbits(drawn.reshape(count, width), axis=1, count=len(moved))
        sums = moved.sum() - 2.0 * (flipped @ moved)
        as_far += int((np.abs(sums) >= seen).sum())
        left -= count
    bound = 2 * exp(-(seen**2) / (2 * float(moved @ moved)))
    return bound if bound < 1 / (FLIPS + 1) else as_far / (FLIPS + 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values (Holm 1979, Scandinavian Journal of Statistics 6, 65-70), in order."""
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    adjusted, highest = [1.0] * len(p_values), 0.0
    for rank, place in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * p_values[place]))
        adjusted[place] = highest
    return adjusted


def _bootstrap(values: Sequence[float]) -> tuple[float, float]:
    """Percentiles of resampled means, as far out as Student's t and n/(n - 1) would have them.

    Of values that are all the same, that value: they say nothing of the spread.
    """
    import numpy as np

    n = len(values)
    if n < 2:
        return float("-inf"), float("inf")
    data = np.asarray(values, dtype=np.float64)
    if not np.ptp(data):
        return float(data[0]), float(data[0])
    random = np.random.default_rng(0)
    means: list[NDArray[Any]] = []
    left = RESAMPLES
    while left > 0:
        count = min(left, max(1, _PIECE // n))
        means.append(data[random.integers(0, n, (count, n))].mean(axis=1))
        left -= count
    outer = NormalDist().cdf(-sqrt(n / (n - 1)) * t_quantile((1 + LEVEL) / 2, n - 1))
    low, high = np.quantile(np.concatenate(means), [outer, 1 - outer])
    return float(low), float(high)


def _is_binary(values: Sequence[float]) -> bool:
    return all(value in (0.0, 1.0) for value in values)


@dataclass(frozen=True, slots=True)
class Verdict:
    """A comparison in one word, and what it rests on."""

    contrast: Contrast
    adjusted: float | None
    """The p-value after Holm; None for measures of which neither end is better."""
    word: str
    """`better` or `worse` of the second, `not told apart`, or "" where nobody is judged."""
    more_prompts: int | None
    """About so many more would settle it; None where it is settled or nothing was seen."""


def verdicts(
    contrasts: Mapping[Any, Contrast], better: Mapping[Any, str | None]
) -> dict[Any, Verdict]:
    """All comparisons, adjusted together; `better` says `more`, `less` or None for each."""
    judged = [key for key in contrasts if better[key] is not None]
    counted = [key for key in judged if contrasts[key].can_be_settled]
    adjusted = dict.fromkeys(judged, 1.0)
    adjusted |= zip(counted, holm([contrasts[key].p for key in counted]), strict=True)
    level = (1 - LEVEL) / max(len(counted), 1)
    found = {}
    for key, seen in contrasts.items():
        if key not in adjusted:
            found[key] = Verdict(seen, None, "", None)
        elif adjusted[key] <= 1 - LEVEL + 1e-12:
            gained = (seen.difference.mean > 0) == (better[key] == "more")
            found[key] = Verdict(seen, adjusted[key], "better" if gained else "worse", None)
        else:
            more = seen.more_prompts(level)
            found[key] = Verdict(seen, adjusted[key], "not told apart", more)
    return found
