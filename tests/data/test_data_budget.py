"""The token budget agrees with counting by hand."""

from __future__ import annotations

import numpy as np
import pytest

from graftlab.data.budget import budget, padded_in_batches, spreads

LENGTHS = [5, 3, 8, 4, 2, 6]
ROWS = [[2], [0, 1], [5, 4], [3]]


def test_a_budget_counted_by_hand() -> None:
    found = budget(LENGTHS, [1] * 6, ROWS, max_length=8, batch_size=2, accumulate=2, over_limit=3)
    assert (found.documents, found.over_limit, found.tokens, found.rows) == (9, 3, 28, 4)
    assert found.density == 28 / 32
    assert found.documents_per_row == 1.5
    assert found.steps_per_epoch == 1
    assert (found.effective_batch, found.tokens_per_step) == (6, 28)
    assert found.gain_over_max_length == 6 * 8 / 28
    assert found.gain_over_batch == (3 * 8 + 3 * 6) / 28


def test_steps_round_up_twice() -> None:
    rows = [[i] for i in range(7)]
    found = budget([1] * 7, [1] * 7, rows, max_length=1, batch_size=2, accumulate=3)
    assert found.steps_per_epoch == 2
    assert found.gain_over_max_length == found.gain_over_batch == found.density == 1


def test_packing_never_costs_more_than_padding() -> None:
    random = np.random.default_rng(0)
    for _ in range(50):
        lengths = random.integers(1, 50, size=random.integers(1, 40))
        batch = int(random.integers(1, 6))
        padded = padded_in_batches(lengths, batch)
        assert lengths.sum() <= padded <= len(lengths) * lengths.max()
        assert padded_in_batches(lengths, 1) == lengths.sum()


def test_spreads_of_each_part() -> None:
    columns = np.array([[10, 0, 1, 5], [10, 0, 3, 7], [10, 0, 2, 90]], np.int32).T
    parts = dict(zip(("system", "tools", "user", "assistant"), columns, strict=True))
    found = {spread.part: spread for spread in spreads(parts)}
    assert list(found) == ["system", "user", "assistant", "total"]
    assert (found["user"].median, found["user"].max) == (2, 3)
    assert found["assistant"].mean == 34
    assert found["total"].max == 102
    assert found["total"].median == pytest.approx(20)
    assert found["system"].p95 == 10


def test_nothing_to_budget() -> None:
    found = budget([], [], [], max_length=8)
    assert (found.rows, found.steps_per_epoch, found.density) == (0, 0, 0)
    assert spreads({"user": np.zeros(0, np.int32)}) == []
