"""What comes out of a tuning: the chosen values, and how much better others may be."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from graftlab.tuning.beliefs import Beliefs, believe
from graftlab.tuning.space import LR, Cell, Space

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

LEVEL = 0.9
"""Of every interval here."""
EPOCHS = "epochs"


@dataclass(frozen=True, slots=True)
class Range:
    """A number that is not known exactly: its middle, and the interval that holds it at `LEVEL`."""

    middle: float
    low: float
    high: float

    @classmethod
    def of(cls, draws: Array, *, mean: bool = False) -> Range:
        """Of draws of it; the middle is their median, or their mean."""
        import numpy as np

        low, middle, high = np.quantile(draws, [(1 - LEVEL) / 2, 0.5, (1 + LEVEL) / 2])
        return cls(float(draws.mean() if mean else middle), float(low), float(high))

    def more(self, unit: str = "") -> str:
        """In words: `0.0040 (0.0010 to 0.0100)`."""
        return f"{self.middle:.4f}{unit} ({self.low:.4f} to {self.high:.4f})"


@dataclass(frozen=True, slots=True)
class Profile:
    """What one key does: for each of its values the best loss that the other keys allow."""

    key: str
    values: dict[str, Range]
    """Value -> how much worse than the proposal, in the unit of the losses."""

    @property
    def sensitivity(self) -> float:
        """How much the worst value costs against the best one, everything else tuned."""
        middles = [found.middle for found in self.values.values()]
        return max(middles) - min(middles)


@dataclass(frozen=True, slots=True)
class Curves:
    """Loss over learning rates, a line with its band for each value of another key."""

    across: str
    values: list[str]
    lines: dict[str, list[Range]]
    """Name of a line -> the loss at each of `values`, all other keys at their best."""


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """The end of a tuning."""

    values: dict[str, str]
    """Key -> the chosen value, epochs among them."""
    cell: Cell
    trained: bool
    """Whether the cell itself was trained; else its loss is what is believed."""
    loss: Range
    base: float
    regret: Range
    """How much better the best cell of the grid is expected to be; mean and interval."""
    cells: int
    """Of the grid."""
    runs: int
    steps: int
    """Optimizer steps that were spent."""
    share: float
    """Of those of the whole grid."""
    profiles: list[Profile]
    curves: Curves | None
    surer: tuple[int, int, float]
    """Runs and steps left of what may be best, and the expected regret that they could end."""
    notes: list[str] = field(default_factory=list)

    @property
    def gain(self) -> float:
        """Of the proposal over the base."""
        return self.base - self.loss.middle


def propose(
    space: Space,
    seen: Mapping[Cell, float],
    *,
    base: float,
    epochs: Mapping[int, int],
    must_be_trained: bool = True,
    replicates: Sequence[Cell] = (),
) -> Proposal | None:
    """The best cell of the grid, as far as it is known; None where no run came to an end.

    `replicates` are further runs of cells that were seen, of which `seen` has the means. With
    `must_be_trained` only cells that were trained are proposed, where there are any.
    """
    finite = {cell: loss for cell, loss in seen.items() if math.isfinite(loss)}
    if not finite:
        return None
    beliefs = believe(space, seen, base=base)
    means = beliefs.means
    trained = [cell for cell in space.cells if cell in finite]
    among = trained if trained and must_be_trained else space.cells
    best = min(among, key=lambda cell: means[cell])
    own = beliefs.draws[:, space.cells.index(best)]
    spent = space.bill(list(seen)) + sum(cell.steps for cell in replicates)
    names = [axis.key for axis in space.axes]
    chosen = dict(zip(names, best.config, strict=True))
    return Proposal(
        values=chosen | {EPOCHS: str(epochs[best.steps])},
        cell=best,
        trained=best in finite,
        loss=Range.of(own),
        base=base,
        regret=Range.of(beliefs.regret(best), mean=True),
        cells=len(space.cells),
        runs=len(seen) + len(replicates),
        steps=spent,
        share=spent / space.grid_steps,
        profiles=_profiles(space, beliefs, own, epochs),
        curves=_curves(space, beliefs),
        surer=_surer(space, beliefs, seen, best),
    )


def _profiles(
    space: Space, beliefs: Beliefs, own: Array, epochs: Mapping[int, int]
) -> list[Profile]:
    found = []
    for place, axis in enumerate(space.axes):
        if len(axis.values) > 1:
            texts = [cell.config[place] for cell in space.cells]
            found.append(_profile(axis.key, axis.values, texts, beliefs, own))
    if len(space.lengths) > 1:
        texts = [str(epochs[cell.steps]) for cell in space.cells]
        values = [str(epochs[steps]) for steps in space.lengths]
        found.append(_profile(EPOCHS, values, texts, beliefs, own))
    return sorted(found, key=lambda profile: -profile.sensitivity)


def _profile(
    key: str, values: Sequence[str], texts: Sequence[str], beliefs: Beliefs, own: Array
) -> Profile:
    return Profile(key, {value: Range.of(_best(beliefs, texts, value) - own) for value in values})


def _best(beliefs: Beliefs, texts: Sequence[str], value: str) -> Array:
    """(draws,) The lowest loss of all cells with this text."""
    places = [place for place, text in enumerate(texts) if text == value]
    best: Array = beliefs.draws[:, places].min(axis=1)
    return best


def _curves(space: Space, beliefs: Beliefs) -> Curves | None:
    """Loss over learning rates, for each value of the first other key that has several."""
    if len(space.rates) < 2:
        return None
    keys = [axis.key for axis in space.axes]
    across = keys.index(LR)
    others = [n for n, a in enumerate(space.axes) if n != across and len(a.values) > 1]
    second = others[0] if others else None
    names = [""] if second is None else space.axes[second].values
    lines = {}
    for name in names:
        label = f"{keys[second]}={name}" if second is not None else "all"
        texts = [
            cell.config[across] if second is None or cell.config[second] == name else ""
            for cell in space.cells
        ]
        lines[label] = [Range.of(_best(beliefs, texts, rate)) for rate in space.rates]
    return Curves(LR, list(space.rates), lines)


def _surer(
    space: Space, beliefs: Beliefs, seen: Mapping[Cell, float], best: Cell
) -> tuple[int, int, float]:
    """Runs and steps that would train all cells which may be the best, up to `LEVEL` of the draws
    in which it is not the proposal, and the regret that is expected until then.
    """
    import numpy as np

    winners = np.bincount(beliefs.draws.argmin(axis=1), minlength=len(beliefs.cells))
    order = [
        place
        for place in np.argsort(-winners)
        if beliefs.cells[place] not in seen and winners[place]
    ]
    total = sum(int(winners[place]) for place in order)
    cells: list[Cell] = []
    covered = 0
    for place in order:
        if covered >= LEVEL * total:
            break
        covered += int(winners[place])
        cells.append(beliefs.cells[place])
    return len(cells), space.bill(cells, seen), float(beliefs.regret(best).mean())
