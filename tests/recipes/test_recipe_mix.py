"""The mix: sources in the proportions asked for, spread evenly, nothing lost, seeded."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graftlab.errors import ConfigError
from graftlab.recipes.mix import Mix
from graftlab.recipes.record import Record
from recipe_rows import Drops, many

SIZES = {"core": 90, "markdown": 6, "guard": 50}


def mixed(mix: Mix, sizes: dict[str, int], drops: Drops | None = None) -> list[Record]:
    records = [record for name, count in sizes.items() for record in many(count, source=name)]
    return list(mix.apply(iter(records), Drops() if drops is None else drops))


def test_three_to_one_to_one() -> None:
    drops = Drops()
    mix = Mix(weights={"core": 3, "markdown": 1, "guard": 1}, max_repeats=None)
    found = mixed(mix, SIZES, drops)
    assert Counter(r.source for r in found) == {"core": 90, "markdown": 30, "guard": 30}
    times = Counter(r.origin for r in found)
    assert {times[r.origin] for r in many(90)} == {1}
    assert {times[r.origin] for r in many(6, source="markdown")} == {5}
    assert len(drops) == 20
    assert {r.source for r, _, _ in drops} == {"guard"}
    assert drops[0][1:] == ("left out by the mix", "30 of the 50 rows of guard are taken")


def test_no_row_is_taken_more_often_than_asked_for() -> None:
    weights = {"core": 3.0, "markdown": 1.0, "guard": 1.0}
    capped = Counter(r.source for r in mixed(Mix(weights=weights), SIZES))
    assert capped == {"core": 90, "markdown": 24, "guard": 30}
    twice = mixed(Mix(weights=weights, max_repeats=2), SIZES)
    assert Counter(Counter(r.origin for r in twice if r.source == "markdown").values()) == {2: 6}
    with pytest.raises(ConfigError, match=r"mix\.max_repeats=0"):
        Mix(max_repeats=0)


def test_rows_that_come_often_are_named_with_the_reason() -> None:
    taken = {"core": 90, "markdown": 6}
    mix = Mix(weights={"core": 3, "markdown": 1})
    assert mix.repeats(taken, {"core": 90, "markdown": 18}) == []
    (line,) = mix.repeats(taken, {"core": 90, "markdown": 24})
    assert line == (
        "markdown: 6 rows are repeated 4 times each in train.jsonl "
        "(mix.max_repeats=4 allows no more)"
    )
    mix = Mix(weights={"core": 3, "markdown": 1}, max_repeats=None)
    (line,) = mix.repeats(taken, {"core": 90, "markdown": 30})
    assert "5 times each in train.jsonl (mix.weights.markdown=1 asks for it)" in line


def test_any_part_of_it_holds_all_sources() -> None:
    mix = Mix(weights={"core": 3, "markdown": 1, "guard": 1}, max_repeats=None)
    found = [r.source for r in mixed(mix, SIZES)]
    for start in range(0, 140, 5):
        part = Counter(found[start : start + 10])
        assert 5 <= part["core"] <= 7
        assert 1 <= part["markdown"] <= 3


def test_the_seed_decides_the_order_and_nothing_else() -> None:
    first, again, other = (mixed(Mix(seed=seed), SIZES) for seed in (1, 1, 2))
    assert first == again != other
    assert sorted(r.origin for r in first) == sorted(r.origin for r in other)
    plain = [r.origin for r in mixed(Mix(shuffle=False), {"core": 50})]
    assert plain == [r.origin for r in many(50)]


def test_a_weight_of_nothing_leaves_a_source_out() -> None:
    drops = Drops()
    found = mixed(Mix(weights={"core": 1, "guard": 0}), {"core": 5, "guard": 3}, drops)
    assert {r.source for r in found} == {"core"}
    assert len(drops) == 3
    with pytest.raises(ConfigError, match=r"mix\.weights are all 0"):
        Mix(weights={"core": 0})
    with pytest.raises(ConfigError, match=r"mix\.weights\.core=-1"):
        Mix(weights={"core": -1})


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(st.sampled_from("abc"), st.integers(1, 12), min_size=1),
    st.fixed_dictionaries({name: st.sampled_from([0, 0.5, 1, 3]) for name in "abc"}),
    st.integers(0, 3),
)
def test_no_record_is_lost(sizes: dict[str, int], weights: dict[str, float], seed: int) -> None:
    drops = Drops()
    mix = Mix(weights=weights if any(weights.values()) else {}, seed=seed)
    out = {r.origin for r in mixed(mix, sizes, drops)}
    dropped = [r.origin for r, _, _ in drops]
    assert len(dropped) == len(set(dropped))
    assert not out & set(dropped)
    assert len(out) + len(dropped) == sum(sizes.values())
