"""Values of configuration keys: written short, in order, and in ranges where there are many."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

MISSING = "–"
"""Stands for a key that a run does not have."""
MOST_DISTINCT = 12
"""Numbers of more distinct values than this are put into ranges."""
RANGES = 8


def written(value: Any) -> str:
    """A value as it would be typed, numbers to four digits."""
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False)
    return str(value)


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def in_order(values: Iterable[Any]) -> list[Any]:
    """Distinct values: numbers by size, then everything else by its text."""
    distinct = {json.dumps(value, sort_keys=True, default=str): value for value in values}
    numbers = sorted(value for value in distinct.values() if is_number(value))
    return [*numbers, *sorted((v for v in distinct.values() if not is_number(v)), key=written)]


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """Key -> its last part, or the whole key where two would have the same name."""
    last = [key.rpartition(".")[2] for key in keys]
    return {
        key: name if last.count(name) == 1 else key for key, name in zip(keys, last, strict=True)
    }


class Bins:
    """The places of an axis: every value, or ranges of about equally many distinct numbers."""

    def __init__(self, values: Iterable[Any]) -> None:
        self.values = in_order(values)
        self._edges: list[float] = []
        self.labels = [written(value) for value in self.values]
        if len(self.values) > MOST_DISTINCT and all(map(is_number, self.values)):
            count = len(self.values)
            cuts = [count * n // RANGES for n in range(RANGES + 1)]
            self._edges = [self.values[cut] for cut in cuts[1:-1]]
            self.labels = [
                f"{self.values[low]:.3g}–{self.values[high - 1]:.3g}"
                for low, high in pairwise(cuts)
            ]

    def place(self, value: Any) -> int:
        """The place of a value that was given at the beginning."""
        return bisect_right(self._edges, value) if self._edges else self.values.index(value)
