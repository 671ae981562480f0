"""The part of the page that tells of `graftlab tune`: its proposal, its doubts, and one picture.

It is drawn from the numbers of `tune.json`; a text in it is only ever shown as text.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from graftlab.files.reading import read_json
from graftlab.pages.html import attribute, esc, section, table

FILE = "tune.json"
WIDTH, HEIGHT = 640, 300
LEFT, RIGHT, TOP, BOTTOM = 60, 110, 12, 40
"""Margins of the picture."""
COLOURS = ("#3b6fb6", "#c2571a", "#2f8f5b", "#8d4ba3", "#a8893a", "#5a5a5a")


def tunings(folders: Sequence[Path]) -> Iterator[str]:
    """A section for each folder in which something was tuned; none of a file that is not whole."""
    for place, folder in enumerate(folders):
        with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
            found = read_json(folder / FILE)
            name = "tuning" if place == 0 else f"tuning-{place}"
            yield section(name, "Tuning", *_parts(found), lead=_lead(found))


def _lead(found: Mapping[str, Any]) -> str:
    values = ", ".join(f"{key}={value}" for key, value in found["values"].items())
    regret = found["regret"]
    return (
        f"Proposed: <b>{esc(values)}</b>. Expected regret {float(regret['middle']):.4f} "
        f"({float(regret['low']):.4f} to {float(regret['high']):.4f}, 90 % interval) against the "
        f"best of {int(found['cells'])} runs, after {int(found['runs'])} runs and "
        f"{float(found['share']):.0%} of the grid's steps."
    )


def _parts(found: Mapping[str, Any]) -> Iterator[str]:
    if found["curves"] is not None:
        yield _picture(found["curves"])
    rows = [
        [
            esc(profile["key"]),
            esc(value),
            "chosen" if found["values"].get(profile["key"]) == value else "",
            f"{float(cost['middle']):+.4f}",
            f"{float(cost['low']):+.4f} to {float(cost['high']):+.4f}",
        ]
        for profile in found["profiles"]
        for value, cost in profile["values"].items()
    ]
    heads = ["key", "value", "", "against the proposal, the other keys tuned", "90 % interval"]
    if rows:
        yield table("wwwnn", heads, rows)
    yield "".join(f"<p>{esc(note)}</p>" for note in found["notes"])


def _picture(curves: Mapping[str, Any]) -> str:
    """Loss over learning rates as SVG: a line for each rank, its band the 90 % interval."""
    rates = [math.log(float(value)) for value in curves["values"]]
    lines = {
        name: [{k: float(point[k]) for k in ("middle", "low", "high")} for point in points]
        for name, points in curves["lines"].items()
    }
    low = min(point["low"] for points in lines.values() for point in points)
    # What is far above the best says only that it is; it must not press the rest together.
    middles = sorted(point["middle"] for points in lines.values() for point in points)
    high = max(middles[(3 * len(middles)) // 4], low + 1e-9) * 1.02
    scale = _Scale(min(rates), max(rates), low, high)
    drawn = [
        _line(scale, rates, p, COLOURS[n % len(COLOURS)]) for n, p in enumerate(lines.values())
    ]
    labels = "".join(
        f'<text x="{WIDTH - RIGHT + 8}" y="{TOP + 14 + 16 * n}" fill="{COLOURS[n % len(COLOURS)]}">'
        f"{esc(name)}</text>"
        for n, name in enumerate(lines)
    )
    ticks = "".join(
        f'<text x="{scale.x(rate):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">'
        f"{esc(value)}</text>"
        for rate, value in zip(rates, curves["values"], strict=True)
    )
    marks = "".join(
        f'<text x="{LEFT - 6}" y="{scale.y(loss) + 4:.1f}" text-anchor="end">{loss:.3g}</text>'
        f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{scale.y(loss):.1f}" y2="{scale.y(loss):.1f}" '
        'stroke="currentColor" stroke-opacity=".15"/>'
        for loss in (low + (high - low) * part / 4 for part in range(5))
    )
    title = f"Loss over {curves['across']}"
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{attribute(title)}" '
        f'style="max-width:{WIDTH}px;width:100%" font-size="12" fill="currentColor">{marks}'
        f"{''.join(drawn)}{labels}{ticks}"
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 6}" text-anchor="middle">'
        f"{esc(curves['across'])}</text></svg>"
    )


class _Scale:
    """From learning rates and losses to the picture's units."""

    def __init__(self, first: float, last: float, low: float, high: float) -> None:
        self.first, self.width = first, (last - first) or 1.0
        self.low, self.height = low, high - low

    def x(self, rate: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (rate - self.first) / self.width

    def y(self, loss: float) -> float:
        share = min(1.0, (loss - self.low) / self.height)
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * share


def _line(
    scale: _Scale, rates: Sequence[float], points: Sequence[Mapping[str, float]], colour: str
) -> str:
    def path(name: str) -> list[str]:
        return [
            f"{scale.x(rate):.1f},{scale.y(point[name]):.1f}"
            for rate, point in zip(rates, points, strict=True)
        ]

    band = " ".join([*path("low"), *reversed(path("high"))])
    return (
        f'<polygon points="{band}" fill="{colour}" fill-opacity=".12"/>'
        f'<polyline points="{" ".join(path("middle"))}" fill="none" stroke="{colour}" '
        'stroke-width="2"/>'
    )
