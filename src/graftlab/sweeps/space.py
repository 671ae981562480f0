"""What a sweep searches: dimensions, and the points that lie in them.

A point says what one job has of its own: swept key -> text as on the command line.

    Dimension(key="lr", low=1e-4, high=1e-3, log=True)                an interval
    Dimension(key="lora.rank", choices=("8", "16"))                   a list
    Dimension(key="lora.dropout", choices=("0", "0.1"), when=("lora", "dora"))
                                                   only in points where lora is dora
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from graftlab.errors import ConfigError

Point = dict[str, str]
Key = tuple[tuple[str, str], ...]

DIGITS = 4
"""Significant digits of a number drawn from an interval: people read, type and name them."""
COUNTED = 10_000
"""An interval with more numbers than this is never searched to its end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dimension:
    """One swept key: a list of texts, or an interval of numbers. Raises ConfigError."""

    key: str
    """A dotted key or a group."""
    choices: tuple[str, ...] | None = None
    """The texts to choose from; None for an interval."""
    low: float | None = None
    """Where the interval starts, itself included."""
    high: float | None = None
    """Where it ends, itself included."""
    step: float | None = None
    """Only every `step` from `low` on; None for any number between the ends."""
    log: bool = False
    """Whether equal ratios, not equal differences, are equally likely."""
    integer: bool = False
    """Whether only whole numbers are drawn."""
    when: tuple[str, str] | None = None
    """(other key, text): the key is only swept where the other has this text."""

    def __post_init__(self) -> None:
        if self.choices is not None:
            if not self.choices:
                raise ConfigError(f"{self.key}: there is nothing to choose from.")
            if len(set(self.choices)) < len(self.choices):
                raise ConfigError(f"{self.key}={','.join(self.choices)} names a value twice.")
            return
        if self.low is None or self.high is None:
            raise ConfigError(f"{self.key} needs a list of values or both ends of an interval.")
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ConfigError(f"{self.key}: {self.words()} must go from a number to a larger one.")
        if self.log and self.low <= 0:
            raise ConfigError(
                f"{self.key}: {self.words()} cannot be logarithmic, as it does not start above 0."
            )
        if self.step is not None and (self.step <= 0 or self.log):
            raise ConfigError(
                f"{self.key}: a step must be above 0, and an interval with one linear."
            )
        if self.integer and any(n != int(n) for n in (self.low, self.high, self.step or 1)):
            raise ConfigError(f"{self.key} takes whole numbers, and so must {self.words()}.")

    @property
    def ends(self) -> tuple[float, float]:
        """Both ends of an interval."""
        assert self.low is not None
        assert self.high is not None
        return self.low, self.high

    @property
    def ordered(self) -> bool:
        """Whether neighbours are alike: an interval, or a list of three and more numbers."""
        return self.choices is None or (
            len(self.choices) > 2 and all(as_number(text) is not None for text in self.choices)
        )

    def values(self) -> Sequence[str] | None:
        """Every text the key can have, or None where there are too many to count."""
        if self.choices is not None:
            return self.choices
        (low, high), step = self.ends, self.step or (1 if self.integer else None)
        if step is None or (high - low) / step >= COUNTED:
            return None
        return [self.text(low + place * step) for place in range(self.count(step))]

    def count(self, step: float) -> int:
        """How many numbers of an interval lie `step` apart, from its low end on."""
        low, high = self.ends
        return math.floor((high - low) / step + 1e-9) + 1

    def text(self, value: float) -> str:
        """A number of the interval as on the command line, never outside of it."""
        if self.integer:
            return str(round(value))
        (low, high), digits = self.ends, 12 if self.step else DIGITS
        return repr(min(max(float(f"{value:.{digits}g}"), low), high))

    def words(self) -> str:
        """The values in words."""
        if self.choices is not None:
            return ", ".join(self.choices)
        scale = [f"in steps of {self.step:g}"] if self.step else []
        scale += ["whole numbers"] if self.integer and not self.step else []
        scale += ["log"] if self.log else []
        return " ".join(
            [f"{self.low:g} to {self.high:g}", *([f"({', '.join(scale)})"] * any(scale))]
        )


def key_of(point: Mapping[str, str]) -> Key:
    """A point, however its keys are ordered."""
    return tuple(sorted(point.items()))


def as_number(text: str) -> float | None:
    """The finite number a text stands for, or None."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def check(dimensions: Sequence[Dimension]) -> None:
    """Raise ConfigError naming every dimension whose condition can never hold."""
    by_key = {dimension.key: dimension for dimension in dimensions}
    problems = [f"{d.key} is swept twice." for d in dimensions if by_key[d.key] is not d]
    for dimension in dimensions:
        if dimension.when is None:
            continue
        key, text = dimension.when
        condition = f"{dimension.key} is swept only where {key}={text}"
        other = by_key.get(key)
        if other is None:
            problems.append(f"{condition}, but {key} is not swept: add it, or leave this out.")
        elif other.choices is None:
            problems.append(f"{condition}: give {key} a list of values instead of an interval.")
        elif text not in other.choices:
            problems.append(f"{condition}, which is not among {other.words()}.")
        elif _circular(dimension, by_key):
            problems.append(f"{condition}, which in turn depends on {dimension.key}.")
    if problems:
        raise ConfigError("\n".join(dict.fromkeys(problems)))


def _circular(dimension: Dimension, by_key: Mapping[str, Dimension]) -> bool:
    seen, at = {dimension.key}, dimension
    while at.when is not None and at.when[0] in by_key:
        at = by_key[at.when[0]]
        if at.key in seen:
            return True
        seen.add(at.key)
    return False


def in_order(dimensions: Sequence[Dimension]) -> list[Dimension]:
    """The dimensions so that each stands behind the one it depends on."""
    by_key = {dimension.key: dimension for dimension in dimensions}
    placed: dict[str, Dimension] = {}

    def place(dimension: Dimension) -> None:
        if dimension.when is not None and dimension.when[0] in by_key:
            place(by_key[dimension.when[0]])
        placed.setdefault(dimension.key, dimension)

    for dimension in dimensions:
        place(dimension)
    return list(placed.values())


def applies(dimension: Dimension, point: Mapping[str, str]) -> bool:
    """Whether the dimension's condition, if any, holds in a point that has the other key."""
    return dimension.when is None or point.get(dimension.when[0]) == dimension.when[1]


def walk(dimensions: Sequence[Dimension]) -> Iterator[Point]:
    """Every point of a space that can be counted, once and one at a time; last key fastest."""
    check(dimensions)
    order = in_order(dimensions)
    conditional = any(dimension.when for dimension in dimensions)
    seen: set[tuple[str, ...]] = set()
    for texts in product(*(dimension.values() or () for dimension in dimensions)):
        point = {d.key: text for d, text in zip(dimensions, texts, strict=True)}
        if conditional:
            point = without_idle(point, order)
            identity = tuple(point.get(d.key, "") for d in dimensions)
            if identity in seen:
                continue
            seen.add(identity)
        yield point


def without_idle(whole: Point, order: Sequence[Dimension]) -> Point:
    """The point without the keys whose condition does not hold in it; `order` is `in_order`'s."""
    point: Point = {}
    for dimension in order:
        if applies(dimension, point):
            point[dimension.key] = whole[dimension.key]
    return {key: text for key, text in whole.items() if key in point}


def grid(dimensions: Sequence[Dimension]) -> list[Point]:
    """Every point, the last key fastest, as Hydra orders its jobs; of no dimensions the empty one.

    A conditional key appears only where its condition holds, and no point twice. Raises ConfigError
    for an interval, which has no end of points.
    """
    problems = [
        f"{d.key}={d.words()}: an interval needs sweep.search=random|tpe|gp or a list of values."
        for d in dimensions
        if d.choices is None
    ]
    if problems:
        raise ConfigError("\n".join(problems))
    return list(walk(dimensions))
