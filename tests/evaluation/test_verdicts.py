"""Intervals cover, equal models are not told apart, and a real difference is found."""

from __future__ import annotations

from math import comb, isclose
from statistics import fmean
from typing import Any

import numpy as np
import pytest

from graftlab.evaluation.verdicts import (
    Contrast,
    contrast,
    estimate,
    holm,
    mcnemar,
    newcombe,
    sign_flip,
    verdicts,
)

SETS = 200
KINDS = ["share", pytest.param("numbers", marks=pytest.mark.slow), "counts"]


def test_known_values() -> None:
    assert isclose(mcnemar(9, 1), 2 * (1 + 10) / 1024)
    assert mcnemar(0, 0) == 1
    assert mcnemar(3, 3) == 1
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []
    # Four differences of one sign: of the 16 ways to sign them, two are as far from zero.
    assert sign_flip([1, 2, 3, 4]) == 2 / 16
    assert sign_flip([0, 0, 0]) == 1
    assert sign_flip([1.0, 0.5] * 10) == pytest.approx(1 / 10_001)


def test_many_comparisons_can_be_settled_by_resampling() -> None:
    """However many draws there are: what is rarer than they can tell has a bound."""
    seen = contrast([0.0] * 60, [1.0 + n / 60 for n in range(60)])
    assert 2 / 2**60 < seen.p < 1e-9
    many = dict.fromkeys(range(2000), seen)
    assert {v.word for v in verdicts(many, dict.fromkeys(many, "more")).values()} == {"better"}


def test_a_few_that_all_differ_need_enough_of_them() -> None:
    """Two of two: four more that differ alike would settle it, not one."""
    seen = contrast([0.0] * 2, [1.0] * 2, share=True)
    assert verdicts({"it": seen}, {"it": "more"})["it"].more_prompts == 4
    assert mcnemar(6, 0) <= 0.05 < mcnemar(5, 0)
    half = contrast([0.0] * 6, [1.0] * 3 + [0.0] * 3, share=True)
    assert half.more_prompts(0.05) == 6


def test_newcombe_is_symmetric_and_holds_the_difference() -> None:
    low, high = newcombe(both=20, gained=12, lost=3, n=50)
    assert -1 <= low < 9 / 50 < high <= 1
    other = newcombe(both=20, gained=3, lost=12, n=50)
    assert (low, high) == pytest.approx((-other[1], -other[0]))
    same = newcombe(both=50, gained=0, lost=0, n=50)
    assert same[0] < 0 < same[1]
    assert same[1] < 0.08


def test_sign_flip_draws_agree_with_all_signs() -> None:
    moved = [0.3, -0.1, 0.7, 0.2, -0.4, 0.5, 0.1, 0.6, -0.2, 0.35, 0.15, 0.25, -0.05, 0.45, 0.1]
    count = len(moved)
    signs = 1 - 2 * (np.arange(2**count)[:, None] >> np.arange(count) & 1)
    exact = (np.abs(signs @ np.array(moved)) >= sum(moved) - 1e-9).mean()
    assert sign_flip(moved) == pytest.approx(exact, abs=0.01)


def simulated(random: np.random.Generator, kind: str, *, gain: float = 0.0, n: int = 50):
    """Values of two models on the same prompts, whose difficulty they share."""
    hard = random.normal(size=n)
    if kind == "share":
        chance = 1 / (1 + np.exp(-hard))
        first = (random.random(n) < chance).astype(float)
        return first, (random.random(n) < np.clip(chance + gain, 0, 1)).astype(float)
    if kind == "counts":  # many zeros, few large ones
        return (random.poisson(np.exp(hard - 1 + shift)).astype(float) for shift in (0, gain))
    return hard + random.normal(size=n), hard + random.normal(size=n) + gain


def compared(random: np.random.Generator, kind: str, **how: Any) -> Contrast:
    first, second = map(list, simulated(random, kind, **how))
    found = contrast(first, second, share=kind == "share")
    assert found is not None
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_equal_models_are_seldom_told_apart(kind: str) -> None:
    random = np.random.default_rng(1)
    p_values = [compared(random, kind).p for _ in range(SETS)]
    false = fmean(p <= 0.05 for p in p_values)
    assert false <= 0.05 + 1.64 * (0.05 * 0.95 / SETS) ** 0.5
    assert len(set(p_values)) > 10


def test_many_metrics_at_once_have_few_false_winners() -> None:
    """Of whole reports of eight comparisons between equal models, at most one in twenty errs."""
    random = np.random.default_rng(2)
    wrong = 0
    for _ in range(SETS // 2):
        seen = {
            (kind, number): compared(random, kind)
            for kind in ("share", "numbers", "counts", "share")
            for number in range(2)
        }
        found = verdicts(seen, dict.fromkeys(seen, "more"))
        wrong += any(verdict.word != "not told apart" for verdict in found.values())
    assert wrong / (SETS // 2) <= 0.05 + 1.64 * (0.05 * 0.95 / (SETS // 2)) ** 0.5


@pytest.mark.parametrize("kind", KINDS)
def test_intervals_cover(kind: str) -> None:
    random = np.random.default_rng(3)
    many = np.random.default_rng(4)
    first, second = simulated(many, kind, gain=0.3, n=400_000)
    mean, difference = first.mean(), second.mean() - first.mean()
    means = differences = 0
    for _ in range(SETS):
        one, other = map(list, simulated(random, kind, gain=0.3))
        found = estimate(one, share=kind == "share")
        means += found.low <= mean <= found.high
        apart = contrast(one, other, share=kind == "share").difference
        differences += apart.low <= difference <= apart.high
    # Counts are skewed: no interval over 50 of them covers in full.
    least = 0.89 if kind == "counts" else 0.92
    assert least <= means / SETS <= 0.995
    assert least <= differences / SETS <= 0.995


@pytest.mark.parametrize(("kind", "gain"), [("share", 0.35), ("numbers", 1.0), ("counts", 1.0)])
def test_a_real_difference_is_found_and_named(kind: str, gain: float) -> None:
    random = np.random.default_rng(5)
    found = 0
    for _ in range(40):
        seen = {"it": compared(random, kind, gain=gain)}
        words = [verdicts(seen, {"it": better})["it"].word for better in ("more", "less", None)]
        assert words[2] == ""
        assert words[:2] in (["better", "worse"], ["not told apart"] * 2)
        found += words[0] == "better"
    assert found >= 32


def test_how_many_more_would_settle_it() -> None:
    """With so many prompts, about four differences in five of that size are found."""
    random = np.random.default_rng(6)
    seen = None
    while seen is None or not 0.05 < seen.p < 0.5:
        seen = compared(random, "numbers", gain=0.3, n=40)
    more = verdicts({"it": seen}, {"it": "more"})["it"].more_prompts
    size, spread = seen.difference.mean, seen.spread
    found = [sign_flip(list(random.normal(size, spread, 40 + more))) <= 0.05 for _ in range(80)]
    assert 0.65 < fmean(found) < 0.93
    equal = contrast([1.0, 2.0, 3.0], [1.0, 2.0, 3.0])
    assert verdicts({"it": equal}, {"it": "more"})["it"].more_prompts is None


def test_prompts_without_a_value_are_left_out() -> None:
    seen = contrast([1.0, None, 0.0, 1.0], [0.0, 1.0, None, 1.0])
    assert isinstance(seen, Contrast)
    assert (seen.difference.n, seen.difference.mean) == (2, -0.5)
    assert contrast([None], [1.0]) is None
    assert estimate([None, None]) is None
    assert estimate([0.25]).low == float("-inf")
    assert estimate([1.0, 1.0], share=True).low < 1 == estimate([1.0, 1.0], share=True).high
    assert estimate([1.0, 1.0]).low == 1, "a count has no bound at one"
    assert contrast([0.0, 1.0], [1.0, 1.0], share=True).method == "mcnemar"
    assert contrast([0.0, 0.5], [1.0, 1.0], share=True).method == "sign-flip", "draws are averaged"
    assert contrast([0.0, 1.0], [1.0, 1.0]).method == "sign-flip"


def test_comparisons_that_nothing_could_settle_do_not_count() -> None:
    """Eight prompts that differ are enough, whatever else has too few of them."""
    moved = contrast([0.0] * 20, [1.0] * 8 + [0.0] * 12, share=True)
    few = contrast([0.0] * 20, [1.0] * 5 + [0.0] * 15, share=True)
    assert (moved.can_be_settled, few.can_be_settled) == (True, False)
    seen = {"it": moved, **{f"other {n}": few for n in range(5)}}
    found = verdicts(seen, dict.fromkeys(seen, "more"))
    assert (found["it"].word, found["it"].adjusted) == ("better", moved.p)
    assert {found[f"other {n}"].word for n in range(5)} == {"not told apart"}
    assert found["other 0"].more_prompts


def test_mcnemar_is_the_binomial() -> None:
    tail = sum(comb(20, k) for k in range(6))
    assert isclose(mcnemar(5, 15), 2 * tail / 2**20)
