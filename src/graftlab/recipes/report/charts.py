"""Histograms as inline SVG: small multiples that share their axis."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence

from graftlab.pages.html import attribute, count, percent

_WIDTH, _HEIGHT, _TOP, _FOOT = 240, 92, 16, 16


def edges(longest: int) -> list[int]:
    """Lower edges of bins, two for each doubling: 0 1 2 3 4 6 8 12 16 24 ... up to `longest`."""
    found, power = [0, 1], 2
    while found[-1] < longest:
        found += [power, power + power // 2]
        power *= 2
    return found


def histogram(values: Mapping[int, int], bins: Sequence[int], *, median: int, name: str) -> str:
    """One histogram of value -> rows over `bins`; every bar tells its numbers when pointed at."""
    heights = [0] * len(bins)
    for value, rows in values.items():
        heights[bisect_right(bins, value) - 1] += rows
    whole, highest = sum(heights), max(heights, default=0)
    step = _WIDTH / len(bins)
    floor = _HEIGHT - _FOOT
    bars = []
    for number, rows in enumerate(heights):
        if rows:
            height = max(1.0, rows / highest * (floor - _TOP))
            bars.append(
                f'<rect x="{number * step + 0.5:.1f}" y="{floor - height:.1f}" '
                f'width="{step - 1:.1f}" height="{height:.1f}">'
                f"<title>{_words(bins, number)} words: {count(rows)} rows, "
                f"{percent(rows, whole)}</title></rect>"
            )
    middle = (bisect_right(bins, median) - 0.5) * step
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{attribute(name)}: words per row, median {median}">'
        f'<g class="bars">{"".join(bars)}</g>'
        f'<path class="axis" d="M0 {floor}H{_WIDTH}"/>{_ticks(bins, step, floor)}'
        f'<path class="median" d="M{middle:.1f} {_TOP - 2}V{floor}"/>'
        f'<text class="m" x="{middle:.1f}" y="{_TOP - 5}" text-anchor="{_anchor(middle)}">'
        f"{count(median)}</text></svg>"
    )


def _words(bins: Sequence[int], number: int) -> str:
    first = bins[number]
    last = bins[number + 1] - 1 if number + 1 < len(bins) else None
    if last is None:
        return f"{count(first)} or more"
    return count(first) if last == first else f"{count(first)}–{count(last)}"


def _ticks(bins: Sequence[int], step: float, floor: int) -> str:
    """The axis: every fourth power of two, and so not more than fits."""
    marks = [
        (number * step, edge)
        for number, edge in enumerate(bins)
        if edge and edge & (edge - 1) == 0 and (edge.bit_length() - 1) % 2 == 0
    ]
    return "".join(
        f'<path class="axis" d="M{x:.1f} {floor}v3"/>'
        f'<text x="{x:.1f}" y="{floor + 13}" text-anchor="{_anchor(x)}">{_short(edge)}</text>'
        for x, edge in marks
    )


def _short(number: int) -> str:
    return str(number) if number < 1024 else f"{number // 1024}k"


def _anchor(x: float) -> str:
    if x < 12:
        return "start"
    return "end" if x > _WIDTH - 24 else "middle"
