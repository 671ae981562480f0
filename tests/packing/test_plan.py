"""Bin packing: every document once, no row too long, the same rows every time."""

from __future__ import annotations

import random
import time

import pytest

from graftlab.errors import ConfigError
from graftlab.packing.plan import STRATEGIES, Packing, density, plan_rows

PACKED = [strategy for strategy in STRATEGIES if strategy != "none"]


def random_lengths(count: int, *, most: int, seed: int) -> list[int]:
    return [random.Random(f"{seed}/{i}").randint(1, most) for i in range(count)]


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("seed", range(8))
def test_every_document_is_in_exactly_one_row_that_holds_it(strategy: str, seed: int) -> None:
    packing = Packing(strategy=strategy, max_length=97)
    lengths = random_lengths(3 + 40 * seed, most=97, seed=seed)
    rows = plan_rows(lengths, packing)
    assert sorted(index for row in rows for index in row) == list(range(len(lengths)))
    assert all(sum(lengths[index] for index in row) <= 97 for row in rows)
    assert all(row == sorted(row) and row for row in rows)
    assert rows == plan_rows(tuple(lengths), packing)


def test_none_gives_every_document_a_row_of_its_own() -> None:
    assert plan_rows([3, 1, 2], Packing(strategy="none", max_length=8)) == [[0], [1], [2]]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_no_documents_make_no_rows(strategy: str) -> None:
    assert plan_rows([], Packing(strategy=strategy)) == []
    assert density([], [], 8) == 0.0


@pytest.mark.parametrize("seed", range(8))
def test_first_fit_takes_the_first_row_with_room(seed: int) -> None:
    lengths = random_lengths(200, most=50, seed=seed)
    expected: list[list[int]] = []
    for index, length in enumerate(lengths):
        room = (row for row in expected if sum(lengths[i] for i in row) + length <= 50)
        row = next(room, None)
        if row is None:
            expected.append([index])
        else:
            row.append(index)
    assert any(len(row) > 1 for row in expected)
    assert plan_rows(lengths, Packing(strategy="first-fit", max_length=50)) == expected


@pytest.mark.parametrize("seed", range(8))
def test_best_fit_leaves_no_row_that_a_later_document_would_have_filled(seed: int) -> None:
    """Longest first into the tightest row: compared with the plain search over all rows."""
    lengths = random_lengths(200, most=50, seed=seed)
    room: list[int] = []
    for length in sorted(lengths, reverse=True):
        fitting = [left for left in room if left >= length]
        if fitting:
            room[room.index(min(fitting))] -= length
        else:
            room.append(50 - length)
    rows = plan_rows(lengths, Packing(strategy="best-fit", max_length=50))
    assert sorted(50 - sum(lengths[i] for i in row) for row in rows) == sorted(room)


def test_best_fit_is_at_least_as_dense_as_first_fit_on_chats() -> None:
    draw = random.Random(0)
    lengths = [min(3300, max(40, int(draw.lognormvariate(6.92, 0.45)))) for _ in range(3000)]
    plans = {s: plan_rows(lengths, Packing(strategy=s, max_length=4095)) for s in STRATEGIES}
    dense = {s: density(lengths, rows, 4095) for s, rows in plans.items()}
    assert dense["none"] < 0.35 < 0.95 < dense["first-fit"] <= dense["best-fit"] <= 1
    assert dense["best-fit"] > 0.985


@pytest.mark.parametrize("strategy", PACKED)
def test_planning_time_grows_almost_linearly(strategy: str) -> None:
    """A quadratic search would take minutes for these; the tree and the bit set take tenths."""
    lengths = random_lengths(60_000, most=2048, seed=1)
    started = time.process_time()
    plan_rows(lengths, Packing(strategy=strategy, max_length=2048))
    assert time.process_time() - started < 5


def test_a_document_longer_than_a_row_is_our_own_mistake() -> None:
    with pytest.raises(AssertionError, match="over_limit"):
        plan_rows([9], Packing(max_length=8))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_shortest_document_has_a_row(strategy: str) -> None:
    assert plan_rows([1], Packing(strategy=strategy, max_length=2)) == [[0]]
    rows = plan_rows([1, 2], Packing(strategy=strategy, max_length=2))
    assert sorted(rows) == [[0], [1]]


def test_keys_are_named() -> None:
    with pytest.raises(ConfigError, match=r"^packing\.max_length=1 "):
        Packing(max_length=1)
    with pytest.raises(ConfigError, match=r"^packing\.strategy=best "):
        Packing(strategy="best")
