"""Numbers and verdicts in words, the same on the terminal and on the page."""

from __future__ import annotations

from collections.abc import Iterator
from math import isfinite
from typing import TYPE_CHECKING

from graftlab.errors import counted

if TYPE_CHECKING:
    from graftlab.evaluation.metrics.base import Measure
    from graftlab.evaluation.results import Results
    from graftlab.evaluation.verdicts import Estimate, Verdict


def number(value: float, measure: Measure, *, signed: bool = False) -> str:
    """`62 %`, `3.14`, `+0.20`."""
    scaled = value * measure.unit
    if not isfinite(scaled):
        return "?"
    size = abs(scaled)
    digits = (0 if size >= 10 else 1) if measure.share else 0 if size >= 1000 else 1
    digits = 2 if not measure.share and size < 10 else digits
    sign = "+" if signed else ""
    return f"{scaled:{sign}.{digits}f}" + (" %" if measure.share else "")


def bounds(found: Estimate, measure: Measure, *, signed: bool = False) -> str:
    """`[48 %, 74 %]`, or a dash where there is none."""
    if not isfinite(found.low) or not isfinite(found.high):
        return "–"
    low, high = (number(value, measure, signed=signed) for value in (found.low, found.high))
    return f"[{low}, {high}]"


def how_many(found: Results) -> str:
    """`50 prompts`, or `48 of 200 prompts, in random order until the verdict was clear`."""
    asked, early = len(found.prompts), found.early
    if early is None:
        return counted(asked, "prompt")
    end = "until the verdict was clear" if early.stopped else "all of them: it was not clear before"
    return f"{asked} of {counted(early.of, 'prompt')}, in random order, {end}"


def preferred_in(found: Results, place: int) -> Iterator[str]:
    """`votes: run, not base`, of each two models of which somebody preferred one."""
    for one in found.preferences:
        for (first, second), values in one.pairs.items():
            if value := values[place]:
                better, other = (second, first) if value > 0 else (first, second)
                yield f"{one.by}: {better}, not {other}"


def words(found: Verdict) -> str:
    """`better`, `worse`, or what would settle it."""
    if found.word != "not told apart":
        return found.word or ""
    if not found.contrast.moved:
        return "not told apart: the same on every prompt"
    if found.contrast.difference.mean == 0:
        return "not told apart: no difference was seen"
    if found.more_prompts is None:
        return "not told apart: too small a difference for any number of prompts"
    more = counted(rounded(found.more_prompts), "more prompt")
    return f"not told apart: about {more} would settle it"


def rounded(count: int) -> int:
    """Two digits of a count that is an estimate."""
    power: int = 10 ** max(0, len(str(count)) - 2)
    return -(-count // power) * power


ARROWS = {"more": "↑", "less": "↓", None: ""}
"""Which way is better."""


def label(metric: str, measure: str, about: Measure) -> str:
    """`exact-match pct_exact ↑`."""
    return " ".join(filter(None, (metric.replace("_", "-"), measure, ARROWS[about.better])))
