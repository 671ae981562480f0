"""Student's t distribution, as far as intervals need it: distribution function and quantile.

The distribution function is the regularised incomplete beta function, summed as a continued
fraction (modified Lentz); the quantile inverts it by bisection. Against tables both are exact to
better than 1e-9 for 1 to 10,000 degrees of freedom, whole or not (Welch's are not).
"""

from __future__ import annotations

from functools import cache
from math import exp, inf, lgamma, log, log1p, sqrt
from statistics import NormalDist

_TINY = 1e-300
_PRECISION = 1e-15


def t_probability(t: float, df: float) -> float:
    """P(T <= t) for `df` degrees of freedom."""
    if t == 0:
        return 0.5
    square = t * t
    # Of the two equal forms, the one whose argument is not rounded to 1 for small t.
    if square < df:
        half = 0.5 * _beta(square / (df + square), 0.5, df / 2)
        return 0.5 + half if t > 0 else 0.5 - half
    tail = 0.5 * _beta(df / (df + square), df / 2, 0.5)
    return 1 - tail if t > 0 else tail


@cache
def t_quantile(probability: float, df: float) -> float:
    """The t with P(T <= t) = `probability`, for 0 < probability < 1 and df > 0."""
    if not 0 < probability < 1 or not df > 0:
        raise ValueError(f"no quantile at {probability} with {df} degrees of freedom")
    if probability < 0.5:
        return -t_quantile(1 - probability, df)
    low, high = 0.0, 1.0
    while t_probability(high, df) < probability and high < 1e12:
        low, high = high, 2 * high
    for _ in range(200):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if t_probability(middle, df) < probability else (low, middle)
    return (low + high) / 2


def wilson_interval(successes: float, trials: float, level: float = 0.95) -> tuple[float, float]:
    """Bounds of a probability by Wilson's score; good for few trials and near 0 and 1.

    `successes` may be broken, where ties count as halves. Raises ValueError without a trial.
    """
    if not trials > 0:
        raise ValueError("no interval without a trial")
    z = NormalDist().inv_cdf((1 + level) / 2)
    share, spread = successes / trials, z * z / trials
    middle = (share + spread / 2) / (1 + spread)
    half = sqrt(share * (1 - share) * spread + (spread / 2) ** 2) / (1 + spread)
    return max(0.0, middle - half), min(1.0, middle + half)


def _beta(x: float, a: float, b: float) -> float:
    """The regularised incomplete beta function I_x(a, b)."""
    if x <= 0:
        return 0.0
    if x >= 1:
        return 1.0
    front = exp(lgamma(a + b) - lgamma(a) - lgamma(b) + a * log(x) + b * log1p(-x))
    if x < (a + 1) / (a + b + 2):
        return front * _fraction(x, a, b) / a
    return 1 - front * _fraction(1 - x, b, a) / b


def _fraction(x: float, a: float, b: float) -> float:
    """The continued fraction of the incomplete beta function, by Lentz's method."""
    c, d = 1.0, _away(1 - (a + b) * x / (a + 1))
    d = 1 / d
    value = d
    for m in range(1, 10_000):
        change = inf
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 / _away(1 + term * d)
            c = _away(1 + term / c)
            change = c * d
            value *= change
        if abs(change - 1) < _PRECISION:
            break
    return value


def _away(number: float) -> float:
    """`number`, unless it is too near zero to divide by."""
    return number if abs(number) > _TINY else _TINY
