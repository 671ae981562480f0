"""Made-up grids whose losses are known, for tests of what a tuning decides and claims."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

from graftlab.tuning.rounds import Round, State, next_round, widened
from graftlab.tuning.space import Axis, Cell, Space

EPOCH = 12
RATES = ("0.001", "0.002", "0.005", "0.01", "0.02", "0.05")
RANKS = ("4", "8", "16", "32")
Losses = Callable[[Cell], float]


def grid(
    *,
    rates: tuple[str, ...] = RATES,
    ranks: tuple[str, ...] = RANKS,
    epochs: tuple[int, ...] = (1, 2, 4),
    widens: bool = False,
) -> Space:
    """A grid whose schedule decays over the last fifth."""
    lengths = tuple(n * EPOCH for n in epochs)
    return Space(
        axes=(Axis("lr", rates), Axis("lora.rank", ranks)),
        ladder=lengths[0],
        lengths=lengths,
        shared={(a, b): a - round(0.2 * a) for a in lengths for b in lengths if a < b},
        widens=widens,
    )


def surface(seed: int, *, best_rate: float | None = None) -> tuple[Losses, float]:
    """Losses of one made-up task, and that of its base.

    A valley over the learning rate that is steeper above, drifts with rank and length, and ends in
    a cliff; ranks that matter little; a power law over the steps, and sometimes overfitting; noise.
    """
    rng = random.Random(seed)
    drawn = rng.uniform(math.log(1e-3), math.log(5e-2))
    centre = drawn if best_rate is None else math.log(best_rate)
    width, steeper = rng.uniform(0.02, 0.2), rng.uniform(1, 3)
    rank, drift, lean = rng.uniform(-0.05, 0.02), rng.uniform(0, 0.3), rng.uniform(0, 0.15)
    falls, power = rng.uniform(0.2, 1.0), rng.uniform(0.3, 1.0)
    rises = rng.choice([0.0, rng.uniform(0, 0.2)])
    floor, noise = rng.uniform(1, 2), rng.choice([0.002, 0.01])
    base = rng.uniform(3.5, 5)

    def loss(cell: Cell) -> float:
        doublings = math.log2(float(cell.config[1])) - 3
        share = cell.steps / (4 * EPOCH)
        from_best = math.log(float(cell.config[0])) - centre + lean * doublings
        from_best += drift * math.log(share)
        if from_best > 3:
            return math.nan  # diverged
        valley = width * from_best**2 * (steeper if from_best > 0 else 1)
        slow = falls * (share**-power - 1) * (0.7 + 0.3 * math.exp(-0.3 * from_best))
        chance = random.Random(f"{seed} {cell}").gauss(0, noise)
        return floor + valley + rank * doublings + slow + rises * share + chance

    return loss, base


def tuned(
    space: Space, loss: Losses, base: float, *, share: float = 0.2
) -> tuple[Space, dict[Cell, float], list[Round]]:
    """The space as it was reached, what was trained, and the rounds."""
    seen: dict[Cell, float] = {}
    rounds: list[Round] = []
    while True:
        space = widened(space, seen)
        left = int(share * space.grid_steps) - space.bill(list(seen))
        following = next_round(State(space, seen, base, left))
        if following is None:
            return space, seen, rounds
        rounds.append(following)
        seen |= {cell: loss(cell) for cell in following.cells}
