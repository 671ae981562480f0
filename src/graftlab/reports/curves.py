"""Loss curves to be drawn: the training loss smoothed, both thinned to what a screen can show."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite, nan

from graftlab.reports.run import ReportedRun, validation
from graftlab.tracking.history import Row

AXES = ("step", "tokens", "seconds")
Curve = dict[str, list[float]]
"""`loss` (or what else is drawn), and the same number of places on each of AXES."""

REWARDS = ("reward_margin", "rewards_chosen", "rewards_rejected", "reward_accuracy")
"""Columns of runs that learn preferences."""

MOST_POINTS = 60_000
"""Points of one kind in a page, over all runs."""
SMOOTHED = 20
"""The mean reaches back over about this part of the run: one 20th."""


def points_each(runs: int) -> int:
    """Points that one curve may have, so that the page stays small."""
    return max(40, min(400, MOST_POINTS // max(1, runs)))


def train_curve(run: ReportedRun, *, most: int) -> Curve:
    """The training loss, smoothed."""
    return _smooth(run, "loss", most)


def has_rewards(run: ReportedRun) -> bool:
    """Whether it learns preferences, and has logged a step."""
    return any(name in row for row in run.rows for name in REWARDS)


def reward_curves(run: ReportedRun, *, most: int) -> dict[str, Curve]:
    """Each of REWARDS, smoothed; none of a run without preferences."""
    return {name: _smooth(run, name, most) for name in REWARDS} if has_rewards(run) else {}


def _smooth(run: ReportedRun, name: str, most: int) -> Curve:
    """A column as an exponential mean, without the bias to its first value."""
    rows = [row for row in run.rows if isfinite(row.get(name, nan))]
    span = max(1.0, len(rows) / SMOOTHED)
    keep = 1 - 1 / span
    mean, weight = 0.0, 0.0
    smooth = []
    for row in rows:
        mean = keep * mean + (1 - keep) * row[name]
        weight = keep * weight + (1 - keep)
        smooth.append(mean / weight)
    return _curve(rows, smooth, most)


def valid_curve(run: ReportedRun, *, most: int) -> Curve:
    """The validation loss as it was measured, beginning with the base's."""
    rows = [row for row in run.rows if isfinite(validation(row))]
    return _curve(rows, [validation(row) for row in rows], most)


def _curve(rows: Sequence[Row], losses: Sequence[float], most: int) -> Curve:
    kept = list(range(len(rows)))
    if len(rows) > most:  # evenly, the first and the last among them
        kept = sorted({round(n * (len(rows) - 1) / (most - 1)) for n in range(most)})
    return {axis: [_short(rows[n].get(axis, 0)) for n in kept] for axis in AXES} | {
        "loss": [_short(losses[n]) for n in kept]
    }


def _short(number: float) -> float:
    """Five digits: more cannot be seen, and a page holds tens of thousands."""
    return number if isinstance(number, int) else float(f"{number:.5g}")
