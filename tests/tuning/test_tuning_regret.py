"""What a tuning claims of its proposal holds, over made-up tasks whose truth is known."""

from __future__ import annotations

import math

import pytest

from graftlab.tuning.proposal import propose
from surfaces import EPOCH, grid, surface, tuned

EPOCHS = {n * EPOCH: n for n in (1, 2, 4)}


def claims(seed: int) -> tuple[bool, float, float]:
    """Whether the interval holds the true regret, that as a share of the gain, and the budget's."""
    space = grid()
    loss, base = surface(seed)
    _, seen, _ = tuned(space, loss, base)
    found = propose(space, seen, base=base, epochs=EPOCHS)
    assert found is not None
    truth = {cell: loss(cell) for cell in space.cells}
    best = min(value for value in truth.values() if math.isfinite(value))
    regret = truth[found.cell] - best
    assert found.loss.middle == pytest.approx(truth[found.cell])
    holds = found.regret.low - 1e-9 <= regret <= found.regret.high + 1e-9
    return holds, regret / (base - best), found.share


@pytest.mark.slow
def test_intervals_hold_the_truth_in_85_percent_of_tasks() -> None:
    found = [claims(seed) for seed in range(100, 180)]
    assert sum(holds for holds, _, _ in found) >= 0.85 * len(found)
    assert sum(regret <= 0.02 for _, regret, _ in found) >= 0.75 * len(found)
    assert max(share for _, _, share in found) <= 0.2


def test_intervals_hold_the_truth_in_a_few_tasks() -> None:
    found = [claims(seed) for seed in range(4)]
    assert sum(holds for holds, _, _ in found) >= 3
    assert sum(regret <= 0.02 for _, regret, _ in found) >= 3
