"""What is trained next: the ladder finds the range, halving the best, and nothing is paid twice."""

from __future__ import annotations

import math

import pytest

from graftlab.tuning.proposal import propose
from graftlab.tuning.rounds import State, next_round
from graftlab.tuning.space import Axis, Cell, neighbour, rates_around
from surfaces import EPOCH, RANKS, grid, surface, tuned

EPOCHS = {n * EPOCH: n for n in (1, 2, 4)}


def test_the_series_of_learning_rates() -> None:
    assert rates_around(1e-3, below=2, above=3) == (
        "0.0002",
        "0.0005",
        "0.001",
        "0.002",
        "0.005",
        "0.01",
    )
    assert neighbour("0.0004", up=True) == "0.0005"
    assert neighbour("0.0004", up=False) == "0.0002"


def test_a_longer_run_costs_what_the_shorter_one_has_not_trained() -> None:
    space = grid()
    short, middle, long = (Cell(("0.01", "8"), n * EPOCH) for n in (1, 2, 4))
    assert space.bill([long, short, middle]) == 12 + (24 - 10) + (48 - 19)
    assert space.bill([long], [short]) == 48 - 10
    assert space.bill([short], [short]) == 0
    assert space.grid_steps == 24 * 55


def test_the_ladder_comes_first_then_halving_within_the_budget() -> None:
    space = grid()
    loss, base = surface(1)
    _, seen, rounds = tuned(space, loss, base)
    assert [r.kind for r in rounds[:4]] == ["ladder", "halving", "halving", "halving"]
    assert [cell.steps for cell in rounds[0].cells] == [EPOCH] * 6
    lengths = [{cell.steps for cell in r.cells} for r in rounds[1:4]]
    assert lengths == [{EPOCH}, {2 * EPOCH}, {4 * EPOCH}]
    sizes = [len(r.cells) for r in rounds[1:4]]
    assert sizes == sorted(sizes, reverse=True)
    assert space.bill(list(seen)) <= 0.2 * space.grid_steps
    assert len(set(seen)) == sum(len(r.cells) for r in rounds)


def test_with_budget_for_all_what_cannot_be_better_is_not_trained() -> None:
    space = grid()
    loss, base = surface(2)
    _, seen, rounds = tuned(space, loss, base, share=1.0)
    assert len(rounds) > 3
    assert len(space.cells) / 4 < len(seen) < len(space.cells)
    best = min(loss(cell) for cell in space.cells if math.isfinite(loss(cell)))
    assert min(seen.values()) - best < 0.02 * (base - best)


@pytest.mark.parametrize("best", [2e-5, 0.4])
def test_a_wrong_prior_costs_time_but_not_correctness(best: float) -> None:
    """The rates are tried around 0.005, and the best one is up to 250 times away."""
    space = grid(widens=True)
    loss, base = surface(3, best_rate=best)
    reached, seen, rounds = tuned(space, loss, base, share=0.5)
    found = propose(reached, seen, base=base, epochs=EPOCHS)
    assert found is not None
    assert 1 / 3 < float(found.values["lr"]) / best < 3
    ladders = [r for r in rounds if r.kind == "ladder"]
    assert len(ladders) > 1
    _, expected, _ = tuned(grid(rates=rates_around(best, below=3, above=2)), loss, base, share=0.5)
    reach, goal = (min(filter(math.isfinite, one.values())) for one in (seen, expected))
    assert reach - goal < 0.02 * (base - goal)


def test_a_list_that_was_typed_is_never_widened() -> None:
    loss, base = surface(3, best_rate=0.4)
    reached, _, _ = tuned(grid(), loss, base)
    assert reached.rates == grid().rates


def test_nothing_is_left_of_one_value() -> None:
    space = grid(rates=("0.01",), ranks=("8",), epochs=(1,))
    (only,) = space.cells
    first = next_round(State(space, {}, 4.0, 2))
    assert first is not None
    assert first.cells == [only]
    assert next_round(State(space, {only: 2.0}, 4.0, 99)) is None
    found = propose(space, {only: 2.0}, base=4.0, epochs=EPOCHS)
    assert found is not None
    assert (found.regret.high, found.profiles, found.curves, found.surer[0]) == (0.0, [], None, 0)


def test_names_are_tuned_beside_numbers() -> None:
    space = grid(ranks=("8",))
    axes = (space.axes[0], Axis("lora.targets", ("attn", "mlp")), space.axes[1])
    space = type(space)(axes=axes, ladder=space.ladder, lengths=space.lengths, shared=space.shared)
    plain, base = surface(4)

    def loss(cell: Cell) -> float:
        worse = 0.4 if cell.config[1] == "attn" else 0.0
        return plain(Cell((cell.config[0], "8"), cell.steps)) + worse

    _, seen, _ = tuned(space, loss, base, share=0.4)
    found = propose(space, seen, base=base, epochs=EPOCHS)
    assert found is not None
    assert found.values["lora.targets"] == "mlp"
    told = next(p for p in found.profiles if p.key == "lora.targets")
    assert told.values["attn"].low > 0


def test_where_every_run_diverges_nothing_is_proposed() -> None:
    space = grid()
    seen = dict.fromkeys(space.rungs(), math.nan)
    assert propose(space, seen, base=4.0, epochs=EPOCHS) is None


def test_ranks_that_were_not_tried_are_believed_less_well_known() -> None:
    space = grid()
    loss, base = surface(5)
    seen = {cell: loss(cell) for cell in space.rungs()}
    found = propose(space, seen, base=base, epochs=EPOCHS)
    assert found is not None
    assert found.curves is not None
    widths = {
        name: sum(point.high - point.low for point in points)
        for name, points in found.curves.lines.items()
    }
    middle = RANKS[len(RANKS) // 2]
    assert widths[f"lora.rank={middle}"] < widths["lora.rank=4"]


def test_where_training_only_harms_the_regret_is_still_that_of_the_runs() -> None:
    space = grid(ranks=("8",), epochs=(1,))
    seen = {cell: 5.0 + n for n, cell in enumerate(space.cells) if n < 3}
    found = propose(space, seen, base=4.0, epochs=EPOCHS, must_be_trained=True)
    assert found is not None
    assert found.gain < 0
    assert found.loss.middle == 5.0
    assert found.regret.high > 0.01
