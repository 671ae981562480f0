"""Which cells are trained next: a ladder, successive halving, and what is still open.

    ladder     every learning rate for a few dozen steps, the other keys in their middle; where the
               best is the last one of an open range, two more beyond it
    halving    the rates around the best one with all other values, for the shortest length of the
               grid; of these the most promising for the next length, and so on (successive
               halving, arXiv 1502.07943, of which arXiv 1810.05934 is the asynchronous form)
    open       what may still be better than the best, by the improvement that is expected for each
               step of its cost (expected improvement, Jones et al. 1998), as long as the budget
               lasts and it is worth a thousandth of what training gains

    seeds      the two best with further seeds, where they are close and seeds are asked for

"Promising" is what `beliefs` expects of a configuration at its best length from here on, so that
one which learns slowly and is not yet through counts for what it will be.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from graftlab.tuning.beliefs import Beliefs, believe
from graftlab.tuning.space import MOST_RATES, Cell, Config, Space

FIRST_SHARE = 0.4
"""Of what is left after the ladder, this much goes to the shortest length, which all need."""
RATES = 3
"""Learning rates that are tried with all other values: the best of the ladder and those beside."""
CLOSE = 0.01
"""Of the gain over the base: two runs that are no further apart may be so by their seed."""
WORTH = 1e-3
"""Of the gain over the base: an expected improvement that is smaller is not paid for."""


@dataclass(frozen=True, slots=True)
class Round:
    """Cells to train next, and why."""

    kind: str
    """ladder, halving, open or seeds."""
    cells: list[Cell]
    seed: int = 0
    """How many seeds after the first one."""


@dataclass(frozen=True, slots=True)
class State:
    """What is known so far."""

    space: Space
    seen: Mapping[Cell, float]
    """Cell -> its loss, less being better; not a number where it diverged."""
    base: float
    """The loss without training."""
    left: int
    """Optimizer steps that may still be spent."""

    def bill(self, cells: Sequence[Cell]) -> int:
        return self.space.bill(cells, self.seen)

    def within(self, cells: Sequence[Cell], steps: float) -> list[Cell]:
        """The first cells that so many steps pay for, at least one that the budget allows."""
        chosen: list[Cell] = []
        for cell in cells:
            if self.bill([*chosen, cell]) <= max(steps, 0 if chosen else self.left):
                chosen.append(cell)
        return chosen


def widened(space: Space, seen: Mapping[Cell, float]) -> Space:
    """The space with the learning rates that ladders have opened, from what was seen alone."""
    while space.widens and len(space.rates) < MOST_RATES and all(c in seen for c in space.rungs()):
        best = _best_rate(space, seen)
        if best not in (space.rates[0], space.rates[-1]):
            break
        space = space.widened(up=best == space.rates[-1])
    return space


def next_round(state: State) -> Round | None:
    """What to train next; None where nothing is left to try, or to pay.

    The first round is the ladder, whatever the budget: without it nothing is known.
    """
    space, seen = state.space, state.seen
    if missing := [cell for cell in space.rungs() if cell not in seen]:
        return Round("ladder", missing)
    if all(cell in seen for cell in space.cells) or state.left <= 0:
        return None
    if not any(map(math.isfinite, seen.values())):
        return None  # nothing trains: a further run would not tell why
    beliefs = believe(space, seen, base=state.base)
    for place in range(len(space.lengths)):
        cells = _halving(state, beliefs, place)
        if cells is None:
            continue
        return Round("halving", cells) if cells else None
    cells = _open(state, beliefs)
    return Round("open", cells) if cells else None


def rivals(space: Space, seen: Mapping[Cell, float], *, base: float) -> list[Cell]:
    """The best cell and the best of another configuration, where they are so close that the seed
    may decide between them; nothing elsewhere.
    """
    losses = {cell: seen[cell] for cell in space.cells if math.isfinite(seen.get(cell, math.nan))}
    if not losses:
        return []
    best = min(losses, key=lambda cell: losses[cell])
    others = [cell for cell in losses if cell.config != best.config]
    if not others:
        return []
    rival = min(others, key=lambda cell: losses[cell])
    close = losses[rival] - losses[best] <= CLOSE * (base - losses[best])
    return [best, rival] if close else []


def _halving(state: State, beliefs: Beliefs, place: int) -> list[Cell] | None:
    """The cells of the grid's length number `place` to train; None where that was done before."""
    space, steps = state.space, state.space.lengths[place]
    longer = space.lengths[place + 1 :]
    ladder = set(space.rungs())
    if any(c.steps == steps and c not in ladder for c in state.seen):
        return None
    if place == 0:
        wanted = _first(state)
        share = FIRST_SHARE if longer else 1.0
    else:
        before = space.lengths[place - 1]
        wanted = [c.config for c in state.seen if c.steps == before]
        share = 1 / (1 + len(longer))
    cells = [Cell(config, steps) for config in wanted if Cell(config, steps) not in state.seen]
    if not cells:
        return None
    if place:
        cells = _promising(cells, beliefs)[: max(1, len(wanted) // 2)]
    return state.within(cells, share * state.left)


def _first(state: State) -> list[Config]:
    """Configurations for the shortest length: the rates around the ladder's best with every other
    value, those of the ladder first, then always the one that is farthest from all before it.
    """
    space = state.space
    rates = set(_rates(state))
    left = [c for c in space.configs if space.rate(c) in rates or not space.rates]
    chosen = [c.config for c in space.rungs() if c.config in left]
    left = [config for config in left if config not in chosen]
    while left:
        farthest = max(left, key=lambda c: min((_apart(space, c, o) for o in chosen), default=0))
        chosen.append(farthest)
        left.remove(farthest)
    return chosen


def _rates(state: State) -> list[str]:
    """The learning rates beside the ladder's best, itself first."""
    space, seen = state.space, state.seen
    if not space.rates:
        return []
    best = space.rates.index(_best_rate(space, seen))
    order = sorted(range(len(space.rates)), key=lambda place: (abs(place - best), place))
    return [space.rates[place] for place in order[:RATES]]


def _best_rate(space: Space, seen: Mapping[Cell, float]) -> str:
    """The learning rate whose rung of the ladder has the lowest loss."""
    losses = {cell: seen[cell] for cell in space.rungs()}
    best = min(losses, key=lambda c: losses[c] if math.isfinite(losses[c]) else math.inf)
    rate = space.rate(best.config)
    return rate if rate is not None else ""


def _apart(space: Space, one: Config, other: Config) -> int:
    """How many values of the grid lie between two configurations; one for names."""
    return sum(
        abs(a.values.index(x) - a.values.index(y)) if a.places else int(x != y)
        for a, x, y in zip(space.axes, one, other, strict=True)
    )


def _promising(cells: Sequence[Cell], beliefs: Beliefs) -> list[Cell]:
    """Cells in the order in which they are worth training together: first the one whose
    configuration is expected to reach most at this length or a longer one, then always the one
    that lowers what the best of all chosen is expected to reach. Two that are alike do not.
    """
    import numpy as np

    reach = {}
    for cell in cells:
        places = [
            place
            for place, other in enumerate(beliefs.cells)
            if other.config == cell.config and other.steps >= cell.steps
        ]
        reach[cell] = beliefs.draws[:, places].min(axis=1)
    chosen: list[Cell] = []
    best = np.full(len(beliefs.draws), np.inf)
    while reach:
        cell = min(reach, key=lambda c: float(np.minimum(best, reach[c]).mean()))
        best = np.minimum(best, reach.pop(cell))
        chosen.append(cell)
    return chosen


def _open(state: State, beliefs: Beliefs) -> list[Cell]:
    """The untrained cell that is expected to gain most for each step, if that is worth it."""
    import numpy as np

    finite = [
        loss
        for cell, loss in state.seen.items()
        if math.isfinite(loss) and cell.steps in state.space.lengths
    ]
    if not finite:
        return []
    best = min(finite)
    worth = WORTH * max(0.0, state.base - best)
    gains = {}
    for place, cell in enumerate(beliefs.cells):
        cost = state.bill([cell])
        if 0 < cost <= state.left:
            gain = float(np.maximum(best - beliefs.draws[:, place], 0.0).mean())
            if gain > worth:
                gains[cell] = gain / cost
    return [max(gains, key=lambda cell: gains[cell])] if gains else []
