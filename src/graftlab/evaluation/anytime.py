"""Tests that hold however often one looks, and whenever one stops: e-values by betting.

Whoever bets a share of their capital on the sign of each difference, before it is seen, wins
nothing in the long run where neither model is better. So their capital, which starts at 1, ever
reaches 20 with a chance of at most 1 in 20 (Ville 1939), and 1 / its highest value is a p-value
that may be looked at after every prompt. Bets are as in Waudby-Smith & Ramdas (arXiv 2010.09686),
of constant shares of the capital: many bettors, each with an equal part of it.

    difference d of a prompt      a bet of the share g on the second model makes 1 of it
    share of what is 0 or 1       1 + g d
    any other number              1 + g tanh(d / s), s the mean size of the differences so far

Under the null hypothesis, that a difference has either sign alike whatever its size, both are fair:
it is that of McNemar's and the sign-flip test. The confidence sequence asks which mean of bounded
differences no such bettor has grown rich against, and needs no symmetry.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

BETS = 20
"""Shares of the capital that are bet on either side, evenly spread over (0, 1)."""
MEANS = 201
"""Means that a confidence sequence is looked for among."""


def anytime_p(differences: Sequence[float], *, share: bool) -> float:
    """Two-sided p-value of differences in the order in which they were seen.

    On the side of their mean: half of the capital is bet on either.
    """
    import numpy as np

    moved = np.asarray([d for d in differences if d != 0], dtype=np.float64)
    total = moved.sum()
    if not total:
        return 1.0
    if not share:
        sizes = np.abs(moved)
        moved = np.tanh(moved / (np.cumsum(sizes) / np.arange(1, len(sizes) + 1)))
    won = np.log1p(np.outer(np.sign(total) * moved, _bets())).cumsum(axis=0)
    return float(min(1.0, 2 * np.exp(-_capital(won).max())))


def confidence_sequence(
    differences: Sequence[float], *, most: float, level: float
) -> tuple[float, float]:
    """Bounds of the mean difference that hold at every time together; `most` is the largest size.

    To a 100th of `most`.
    """
    import numpy as np

    means = np.linspace(-1, 1, MEANS)[1:-1]
    rich = log(2 / (1 - level))
    # A bet on more loses most at a difference of -1, one on less at 1.
    up = _bets() / (1 + means)[:, None]
    down = _bets() / (1 - means)[:, None]
    won = np.zeros((2, len(means), BETS))
    highest = np.zeros((2, len(means)))
    steps: dict[float, NDArray[Any]] = {}
    for difference in differences:
        if (step := steps.get(difference)) is None:
            gap = (difference / most - means)[:, None]
            step = steps[difference] = np.log1p(np.stack([up * gap, -down * gap]))
        won += step
        highest = np.maximum(highest, _capital(won))
    left = means[(highest < rich).all(axis=0)]
    width = 2 / (MEANS - 1)
    if not len(left):  # between two of the means
        left = np.asarray([sum(differences) / len(differences) / most])
    low, high = max(-1.0, left[0] - width), min(1.0, left[-1] + width)
    return float(low * most), float(high * most)


def _bets() -> NDArray[Any]:
    import numpy as np

    return (np.arange(BETS) + 0.5) / BETS


def _capital(won: NDArray[Any]) -> NDArray[Any]:
    """The logarithm of the capital of equal parts, the last axis being the bets."""
    import numpy as np

    top = won.max(axis=-1, keepdims=True)
    found: NDArray[Any] = top[..., 0] + np.log(np.exp(won - top).mean(axis=-1))
    return found
