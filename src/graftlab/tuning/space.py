"""The grid that is tuned: its keys, the lengths of its runs, and what training a cell costs.

A cell is a configuration and a number of optimizer steps. Runs of one configuration share their
first steps (`sweeps.prefix_sharing`): a longer one goes on from where a shorter one began to decay.

    lengths    8     16       32          steps; 8 is the ladder's, the others are epochs=1,2
    lr 1e-3    x     x                    a cell that was trained
    lr 3e-3    x     x ────▶ x            costs 32 steps less those it shares with the one of 16
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product

LR, RANK = "lr", "lora.rank"
SERIES = (1, 2, 5)
"""Digits of the learning rates that a range is widened by."""
MOST_RATES = 12
"""A range is not widened beyond so many learning rates."""

Config = tuple[str, ...]
"""A value for each axis, in their order."""


@dataclass(frozen=True, slots=True)
class Axis:
    """One key that is tuned, with its values as they are typed, in order."""

    key: str
    values: tuple[str, ...]

    @property
    def places(self) -> tuple[float, ...] | None:
        """Where the values lie: logarithms of numbers, plain where one is zero; None of names."""
        try:
            numbers = [float(value) for value in self.values]
        except ValueError:
            return None
        if min(numbers) > 0:
            return tuple(math.log(number) for number in numbers)
        width = (max(numbers) - min(numbers)) or 1.0
        return tuple(3 * (number - min(numbers)) / width for number in numbers)

    @property
    def middle(self) -> str:
        """The value that stands for the key where others are tried."""
        return self.values[len(self.values) // 2 if self.places else 0]


@dataclass(frozen=True, slots=True)
class Cell:
    """A configuration trained for so many optimizer steps."""

    config: Config
    steps: int


@dataclass(frozen=True, kw_only=True)
class Space:
    """All cells, and what they cost in optimizer steps."""

    axes: tuple[Axis, ...]
    """Every tuned key but the epochs."""
    ladder: int
    """Steps of the first, short runs; may be one of `lengths`."""
    lengths: tuple[int, ...]
    """Steps of the grid's runs, ascending."""
    shared: Mapping[tuple[int, int], int]
    """(shorter, longer) -> steps that the longer run takes over from the shorter."""
    widens: bool = False
    """Whether learning rates beyond the first ones may be tried."""

    @cached_property
    def configs(self) -> list[Config]:
        return list(product(*(axis.values for axis in self.axes)))

    @cached_property
    def cells(self) -> list[Cell]:
        """The grid."""
        return [Cell(config, steps) for config in self.configs for steps in self.lengths]

    @property
    def identity(self) -> str:
        """Hash of the space; rounds that were settled for one are none of another's."""
        return hashlib.sha256(repr((self.axes, self.ladder, self.lengths)).encode()).hexdigest()[
            :12
        ]

    @property
    def longest(self) -> int:
        return self.lengths[-1]

    def cost(self, cell: Cell, done: Collection[Cell]) -> int:
        """Steps that are left to train of a cell when others are done."""
        if cell in done:
            return 0
        own = [c.steps for c in done if c.config == cell.config and c.steps < cell.steps]
        return cell.steps - max(
            (self.shared.get((steps, cell.steps), 0) for steps in own), default=0
        )

    def bill(self, cells: Sequence[Cell], done: Collection[Cell] = ()) -> int:
        """Steps of several cells, the shorter ones first."""
        known, total = set(done), 0
        for cell in sorted(cells, key=lambda cell: cell.steps):
            total += self.cost(cell, known)
            known.add(cell)
        return total

    @cached_property
    def grid_steps(self) -> int:
        """What the whole grid takes, its prefixes shared."""
        return len(self.configs) * self.bill([Cell((), steps) for steps in self.lengths])

    def rungs(self) -> list[Cell]:
        """The ladder: every learning rate, all other keys in their middle."""
        configs = [
            tuple(values)
            for values in product(*(a.values if a.key == LR else (a.middle,) for a in self.axes))
        ]
        return [Cell(config, self.ladder) for config in configs]

    def rate(self, config: Config) -> str | None:
        """The learning rate of a configuration; None where it is not tuned."""
        return next((v for a, v in zip(self.axes, config, strict=True) if a.key == LR), None)

    @property
    def rates(self) -> tuple[str, ...]:
        return next((axis.values for axis in self.axes if axis.key == LR), ())

    def widened(self, *, up: bool) -> Space:
        """With two more learning rates at one end."""
        values = list(self.rates)
        for _ in range(2):
            if up:
                values.append(neighbour(values[-1], up=True))
            else:
                values.insert(0, neighbour(values[0], up=False))
        axes = tuple(Axis(LR, tuple(values)) if a.key == LR else a for a in self.axes)
        return replace(self, axes=axes)

    def leans(self, several: Sequence[float]) -> Sequence[float]:
        """`several` where learning rate and rank are both tuned; else there is nothing to lean."""
        varied = {axis.key for axis in self.axes if len(axis.values) > 1}
        return several if {LR, RANK} <= varied else several[:1]

    def point(self, cell: Cell, epochs: Mapping[int, int]) -> dict[str, str]:
        """The cell as a point of a sweep; `epochs` are those of lengths that are whole ones."""
        values = {axis.key: text for axis, text in zip(self.axes, cell.config, strict=True)}
        if cell.steps in epochs:
            return values | {"epochs": str(epochs[cell.steps])}
        return values | {"max_steps": str(cell.steps)}


def neighbour(rate: str, *, up: bool) -> str:
    """The next learning rate of the series 1, 2, 5 above or below."""
    exponent = math.floor(math.log10(float(rate)) + 1e-9)
    series = [d * 10.0**e for e in range(exponent - 2, exponent + 3) for d in SERIES]
    if up:
        return f"{min(x for x in series if x > float(rate) * 1.2):g}"
    return f"{max(x for x in series if x < float(rate) / 1.2):g}"


def rates_around(centre: float, *, below: int, above: int) -> tuple[str, ...]:
    """Learning rates of the series 1, 2, 5 around one."""
    values = [neighbour(neighbour(f"{centre:g}", up=True), up=False)]
    for _ in range(below):
        values.insert(0, neighbour(values[0], up=False))
    for _ in range(above):
        values.append(neighbour(values[-1], up=True))
    return tuple(values)
