"""Spaces: grids in Hydra's order, conditions without duplicates, and what is refused."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graftlab.errors import ConfigError
from graftlab.sweeps.space import Dimension, check, grid, walk


def listed(key: str, *choices: str, when: tuple[str, str] | None = None) -> Dimension:
    return Dimension(key=key, choices=choices, when=when)


def test_the_last_key_is_the_fastest() -> None:
    points = grid([listed("lr", "1", "2"), listed("rank", "4", "8")])
    assert [tuple(p.values()) for p in points] == [("1", "4"), ("1", "8"), ("2", "4"), ("2", "8")]
    assert grid([]) == [{}]


def test_a_conditional_key_appears_only_where_its_condition_holds() -> None:
    space = [
        listed("dropout", "0", "0.1", when=("lora", "dora")),
        listed("lora", "attn", "dora"),
        listed("lr", "1", "2"),
    ]
    points = grid(space)
    assert {"lora": "attn", "lr": "1"} in points
    assert {"dropout": "0.1", "lora": "dora", "lr": "2"} in points
    assert len(points) == 2 + 2 * 2
    assert all(("dropout" in p) == (p["lora"] == "dora") for p in points)


def test_conditions_chain() -> None:
    space = [
        listed("a", "x", "y"),
        listed("c", "1", "2", when=("b", "q")),
        listed("b", "p", "q", when=("a", "y")),
    ]
    points = grid(space)
    assert points == [
        {"a": "x"},
        {"a": "y", "b": "p"},
        {"a": "y", "c": "1", "b": "q"},
        {"a": "y", "c": "2", "b": "q"},
    ]


@given(
    sizes=st.lists(st.integers(1, 3), min_size=1, max_size=4),
    parents=st.lists(st.integers(0, 3), min_size=4, max_size=4),
    order=st.permutations(range(4)),
)
def test_grids_of_conditional_spaces(
    sizes: list[int], parents: list[int], order: list[int]
) -> None:
    """No point twice; each is whole (no key that applies is missing) and holds none that idles."""
    keys = [f"k{n}" for n in range(len(sizes))]
    space = [
        listed(
            key,
            *(str(v) for v in range(size)),
            when=(f"k{parents[n]}", "0") if parents[n] < n else None,
        )
        for n, (key, size) in enumerate(zip(keys, sizes, strict=True))
    ]
    shuffled = [space[n] for n in order if n < len(space)]
    points = grid(shuffled)
    assert len({tuple(sorted(p.items())) for p in points}) == len(points) > 0
    for point in points:
        for dimension in space:
            holds = dimension.when is None or point.get(dimension.when[0]) == dimension.when[1]
            assert (dimension.key in point) == holds
        assert list(point) == [d.key for d in shuffled if d.key in point]
    everything = itertools.product(*(d.choices or () for d in space))
    projected = set()
    for texts in everything:
        whole = dict(zip(keys, texts, strict=True))
        kept = {}
        for d in space:
            if d.when is None or kept.get(d.when[0]) == d.when[1]:
                kept[d.key] = whole[d.key]
        projected.add(tuple(sorted(kept.items())))
    assert {tuple(sorted(p.items())) for p in points} == projected


def test_an_interval_has_no_grid() -> None:
    with pytest.raises(
        ConfigError, match=r"lr=0.0001 to 0.001 \(log\): an interval needs sweep.sea"
    ):
        grid([Dimension(key="lr", low=1e-4, high=1e-3, log=True), listed("rank", "4")])


def test_what_cannot_be_is_refused_with_the_fix() -> None:
    for wrong, message in [
        ({"choices": ()}, "nothing to choose from"),
        ({"choices": ("1", "1")}, "names a value twice"),
        ({}, "a list of values or both ends"),
        ({"low": 2, "high": 1}, "from a number to a larger one"),
        ({"low": 0, "high": 1, "log": True}, "does not start above 0"),
        ({"low": 0, "high": 1, "step": -1}, "must be above 0"),
        ({"low": 0.5, "high": 3, "integer": True}, "takes whole numbers"),
    ]:
        with pytest.raises(ConfigError, match=f"k.*{message}"):
            Dimension(key="k", **wrong)


def test_conditions_that_can_never_hold_are_all_told() -> None:
    with pytest.raises(ConfigError) as caught:
        check(
            [
                listed("a", "1", when=("gone", "1")),
                listed("b", "1", when=("c", "3")),
                listed("c", "1", "2"),
                listed("d", "1", when=("lr", "1")),
                Dimension(key="lr", low=0, high=1),
                listed("e", "1", when=("f", "1")),
                listed("f", "1", when=("e", "1")),
                listed("c", "9"),
            ]
        )
    told = str(caught.value)
    assert "gone is not swept" in told
    assert "c=3, which is not among 1, 2" in told or "c=3, which is not among 9" in told
    assert "give lr a list of values" in told
    assert "depends on e" in told
    assert "c is swept twice" in told


def test_numbers_are_texts_people_can_read_and_stay_inside() -> None:
    lr = Dimension(key="lr", low=0.000123456, high=0.000987654)
    assert lr.text(0.00034567891) == "0.0003457"
    assert lr.text(0.000123456) == "0.0001235"
    assert float(lr.text(0.000987654)) <= 0.000987654
    rank = Dimension(key="rank", low=8, high=128, integer=True)
    assert rank.text(16.4) == "16"
    assert len(rank.values() or ()) == 121
    stepped = Dimension(key="d", low=0, high=0.3, step=0.1)
    assert stepped.values() == ["0.0", "0.1", "0.2", "0.3"]
    assert Dimension(key="n", low=1, high=1e9, integer=True).values() is None


def test_points_are_walked_one_at_a_time() -> None:
    huge = [Dimension(key=f"k{n}", low=1, high=1000, integer=True) for n in range(5)]
    first = next(walk(huge))
    assert first == {f"k{n}": "1" for n in range(5)}
