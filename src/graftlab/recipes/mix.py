"""The step `mix`: sources in the proportions asked for, evenly interleaved, in a seeded order.

weights  {core: 3, markdown: 1, guard: 1}      core has 900 rows, markdown 60, guard 500
taken    core 900 once · markdown 240, each 4 times · guard 300 of its 500
order    c c m c g c c m c g ...               whatever part is read holds all sources
"""

from __future__ import annotations

import random
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from graftlab.errors import ConfigError, require_range
from graftlab.recipes.record import Drop, Record
from graftlab.recipes.spool import Spool

MANY = 3
"""Repeats of a row from which on they are named."""


@dataclass(kw_only=True, slots=True)
class Mix:
    """`mix.weights={core: 3, markdown: 1, guard: 1}`."""

    weights: dict[str, float] = field(default_factory=dict)
    """Source -> its part of the training rows. The source with the largest weight is taken once,
    whole; the others are repeated or cut to match. Empty takes every row once."""
    max_repeats: int | None = 4
    """Most times that a row is taken, whatever the weights: up to four passes teach about as much
    as rows that are new, and further ones less and less (arXiv:2305.16264). Null for no limit."""
    shuffle: bool = True
    """Shuffle each source before they are interleaved."""
    seed: int = 0
    """Seed of the shuffling, and so of what is repeated or left out."""

    def __post_init__(self) -> None:
        for name, weight in self.weights.items():
            require_range(f"mix.weights.{name}", weight, least=0)
        require_range("mix.max_repeats", self.max_repeats, least=1)
        if self.weights and not any(self.weights.values()):
            raise ConfigError("mix.weights are all 0: give the sources to train on a weight.")

    def apply(self, records: Iterator[Record], drop: Drop) -> Iterator[Record]:
        """Every record at least once or dropped; all must be seen before the first can go on."""
        numbers: dict[str, array[int]] = {}
        with Spool() as spool:
            for record in records:
                numbers.setdefault(record.source, array("l")).append(spool.add(record))
            taken = self._sizes({source: len(found) for source, found in numbers.items()})
            chosen = {}
            for source, found in numbers.items():
                chosen[source], left = self._order(source, found, taken[source])
                detail = f"{taken[source]} of the {len(found)} rows of {source} are taken"
                for number in left:
                    drop(spool[number], "left out by the mix", detail)
            for number in interleaved(chosen):
                yield spool[number]

    def _sizes(self, available: dict[str, int]) -> dict[str, int]:
        """Rows to take of each source."""
        if not self.weights:
            return available
        weights = {source: self.weights.get(source, 0) for source in available}
        main = max(available, key=lambda s: (weights[s], available[s]), default="")
        if not main or not weights[main]:
            return dict.fromkeys(available, 0)
        unit = available[main] / weights[main]
        sizes = {s: max(1, round(unit * w)) if w else 0 for s, w in weights.items()}
        if self.max_repeats is None:
            return sizes
        return {s: min(size, self.max_repeats * available[s]) for s, size in sizes.items()}

    def _order(self, source: str, numbers: array[int], count: int) -> tuple[array[int], list[int]]:
        """(`count` numbers, those left out): whole passes, each in an order of its own."""
        rng = random.Random(f"{self.seed} {source}")
        order = array("l")
        left: list[int] = []
        while True:
            turn = numbers.tolist()
            if self.shuffle:
                rng.shuffle(turn)
            missing = count - len(order)
            if not order:
                left = sorted(turn[missing:])
            order.extend(turn[:missing])
            if len(order) >= count:
                return order, left

    def repeats(self, taken: Mapping[str, int], given: Mapping[str, int]) -> list[str]:
        """A line for every source whose rows come more often than MANY times.

        `taken` and `given` are rows that came into the mix and went out of it, by source.
        """
        lines = []
        for source, rows in taken.items():
            times = given.get(source, 0) / rows if rows else 0
            if times <= MANY:
                continue
            if self.max_repeats is not None and times >= self.max_repeats:
                why = f"mix.max_repeats={self.max_repeats} allows no more"
            else:
                why = f"mix.weights.{source}={self.weights.get(source, 0):g} asks for it"
            often = f"{rows:,} rows are repeated {times:.3g} times each in train.jsonl"
            lines.append(f"{source}: {often} ({why})")
        return lines


def interleaved(chosen: dict[str, array[int]]) -> Iterator[int]:
    """All numbers, those of each source in their order and evenly spread over the whole."""
    import numpy as np

    if not chosen:
        return
    places = [(np.arange(len(order)) + 0.5) / max(1, len(order)) for order in chosen.values()]
    numbers = np.concatenate([np.asarray(order, np.int64) for order in chosen.values()])
    for place in np.argsort(np.concatenate(places), kind="stable"):
        yield int(numbers[place])
