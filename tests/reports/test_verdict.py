"""Intervals and verdicts against known values, and what a winner must have."""

from __future__ import annotations

import math
import random
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graftlab.reports.verdict import compare, interval, seeds_to_settle, verdict
from graftlab.statistics import t_probability, t_quantile

# Tables of Student's t: probability, degrees of freedom, quantile.
QUANTILES = [
    (0.975, 1, 12.706204736),
    (0.975, 2, 4.3026527297),
    (0.975, 3, 3.1824463053),
    (0.95, 5, 2.0150483733),
    (0.975, 10, 2.2281388520),
    (0.8, 4, 0.9409645772),
    (0.995, 30, 2.7499956536),
    (0.975, 120, 1.9799304051),
    (0.975, 10_000, 1.9602012393),
]


@pytest.mark.parametrize(("probability", "df", "quantile"), QUANTILES)
def test_quantiles_are_those_of_the_tables(probability: float, df: float, quantile: float) -> None:
    assert t_quantile(probability, df) == pytest.approx(quantile, abs=2e-9)
    assert t_quantile(1 - probability, df) == pytest.approx(-quantile, abs=2e-8)


@given(st.floats(-30, 30))
def test_one_and_two_degrees_of_freedom_have_closed_forms(t: float) -> None:
    assert t_probability(t, 1) == pytest.approx(0.5 + math.atan(t) / math.pi, abs=1e-12)
    closed = 0.5 + t / (2 * math.sqrt(2 + t * t))
    assert t_probability(t, 2) == pytest.approx(closed, abs=1e-12)


@given(st.floats(0.001, 0.999), st.floats(0.5, 5000))
def test_the_quantile_inverts_the_distribution(probability: float, df: float) -> None:
    assert t_probability(t_quantile(probability, df), df) == pytest.approx(probability, abs=1e-10)


@pytest.mark.parametrize("probability", [0.0, 1.0, -1.0])
def test_there_is_no_quantile_at_the_ends(probability: float) -> None:
    with pytest.raises(ValueError, match="no quantile"):
        t_quantile(probability, 3)


def test_an_interval_worked_by_hand() -> None:
    found = interval([1.0, 2.0, 3.0, 4.0])  # sd 1.29099, t(3) 3.18245, half 2.05426
    assert (found.mean, found.n) == (2.5, 4)
    assert found.half == pytest.approx(2.0542602, abs=1e-6)
    assert interval([5.0]).half is None


def test_intervals_hold_the_truth_nineteen_times_in_twenty() -> None:
    dice, held = random.Random(0), 0
    for _ in range(2000):
        found = interval([dice.gauss(3, 1) for _ in range(3)])
        assert found.low is not None
        assert found.high is not None
        held += found.low <= 3 <= found.high
    assert 0.935 < held / 2000 < 0.965


def test_shared_seeds_are_paired() -> None:
    """Noise that is common to a seed cancels: Welch could not tell these apart."""
    first = {0: 1.0, 1: 2.0, 2: 3.0}
    second = {0: 1.1, 1: 2.12, 2: 3.11}
    paired = compare(first, second)
    assert paired.method == "paired"
    assert paired.better
    assert paired.difference.mean == pytest.approx(0.11)
    welch = compare(first, {seed + 10: score for seed, score in second.items()})
    assert welch.method == "welch"
    assert welch.difference.mean == pytest.approx(0.11)
    assert not welch.better


def test_welch_agrees_with_a_reference() -> None:
    # scipy.stats.ttest_ind([1, 1.2, 1.1], [1.5, 1.9, 1.4, 1.6], equal_var=False)
    found = compare(dict(enumerate([1.0, 1.2, 1.1])), dict(enumerate([1.5, 1.9, 1.4, 1.6], 10)))
    assert found.difference.low == pytest.approx(0.17228106, abs=1e-7)
    assert found.difference.high == pytest.approx(0.82771894, abs=1e-7)


def test_single_runs_prove_nothing() -> None:
    found = compare({0: 1.0}, {0: 9.0})
    assert (found.method, found.better, found.seeds) == ("single", False, None)
    judged = verdict([{0: 1.0}, {0: 9.0}])
    assert judged is not None
    assert not judged.wins
    assert seeds_to_settle(judged) is None


def test_a_single_run_is_given_the_spread_of_the_other() -> None:
    """The prediction interval of one more value: t(2) 4.30265 x 0.1 x sqrt(4/3)."""
    several = {0: 1.0, 1: 1.1, 2: 1.2}
    found = compare(several, {7: 1.7})
    assert found.method == "borrowed"
    assert found.difference.mean == pytest.approx(0.6)
    assert found.difference.half == pytest.approx(0.4968275, abs=1e-6)
    assert found.better
    assert not compare(several, {7: 1.5}).better
    assert not compare({7: 1.7}, several).better
    assert (compare(several, {0: 1.5}).seeds or 0) >= 2


# Seeds at which the noncentral t (scipy.stats.nct) first gives a power of 0.8.
@pytest.mark.parametrize(
    ("ratio", "paired", "welch"),
    [(0.2, 3, 2), (0.5, 5, 4), (1, 10, 9), (1.5, 20, 19), (3, 73, 72), (10, 787, 786)],
)
def test_seeds_for_a_power_of_80_percent(ratio: float, paired: int, welch: int) -> None:
    """`ratio` is the standard deviation of a difference over its mean."""
    step = ratio / math.sqrt(2)  # two values 1 ± step have a standard deviation of `ratio`
    found = compare({0: 0.0, 1: 0.0}, {0: 1 - step, 1: 1 + step})
    assert (found.method, found.seeds) == ("paired", paired)
    found = compare({0: 0.0, 1: 0.0}, {10: 1 - step, 11: 1 + step})
    assert (found.method, found.seeds) == ("welch", welch)


def test_what_cannot_be_settled_has_no_number() -> None:
    assert compare({0: 0.0, 1: 0.0}, {0: 1e-6, 1: -1e-6}).seeds is None
    assert compare({0: 0.0, 1: 0.0}, {0: 1e-9 - 1, 1: 1.0}).seeds is None


def test_a_winner_is_apart_from_every_rival() -> None:
    clear = {0: 2.0, 1: 2.1, 2: 2.05}
    best = {0: 1.0, 1: 1.1, 2: 1.0}
    close = {0: 1.1, 1: 1.05, 2: 1.02}
    judged = verdict([clear, best])
    assert judged is not None
    assert (judged.best, judged.wins) == (1, True)
    judged = verdict([clear, best, close])
    assert judged is not None
    assert (judged.best, judged.wins, set(judged.open)) == (1, False, {2})
    assert (seeds_to_settle(judged) or 0) > 3


def test_no_winner_among_none_or_one() -> None:
    assert verdict([]) is None
    alone = verdict([{0: 1.0, 1: 1.1}])
    assert alone is not None
    assert not alone.wins


def test_equals_are_seldom_called_different() -> None:
    """Twelve equal configurations of three seeds: one is called the winner less than 1 in 20."""
    dice = random.Random(1)
    wins = 0
    for _ in range(300):
        judged = verdict([{seed: dice.gauss(1, 0.01) for seed in range(3)} for _ in range(12)])
        assert judged is not None
        wins += judged.wins
    assert wins / 300 < 0.05


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=8))
def test_better_and_worse_are_mirror_images(values: list[float]) -> None:
    one = dict(enumerate(values))
    other = {seed: 2 * value for seed, value in one.items()}
    there, back = compare(one, other), compare(other, one)
    assert there.difference.mean == pytest.approx(-back.difference.mean)
    assert there.seeds == back.seeds
    assert there.difference.mean == pytest.approx(fmean(other.values()) - fmean(values), abs=1e-9)
