"""What the page's scripts draw from: runs, curves, maps and samples as one JSON object."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from math import isfinite
from typing import Any

from graftlab.reports.compare import Comparison, front
from graftlab.reports.curves import points_each, reward_curves, train_curve, valid_curve
from graftlab.reports.importance import Importance
from graftlab.reports.run import ReportedRun
from graftlab.reports.samples import WHO
from graftlab.reports.values import Bins, is_number, written
from graftlab.tracking.ranking import MORE

COSTS = {"seconds": "seconds of training", "tokens": "tokens", "cost": "US dollars"}
"""What a run may cost -> the title of that axis."""


MAPPED, PARALLEL = 6, 12
"""The most important keys that get heat maps (15 pairs of 6), and axes of parallel coordinates."""


def payload(found: Comparison, told: Importance) -> dict[str, Any]:
    """Everything in plain values; runs are named by their place in `runs`."""
    ranked = told.ranked(found.parameters)
    places = {id(run): n for n, run in enumerate(found.runs)}
    texts: dict[str, int] = {}
    common = _common(found.runs)
    most = points_each(len(found.runs))
    return {
        "keys": [{"key": key, "name": found.names[key]} for key in found.keys],
        "parameters": [_parameter(found, k) for k in found.parameters if k in ranked[:PARALLEL]],
        "runs": [_run(found, run, texts, common, most) for run in found.runs],
        "maps": [asdict(heat_map) for heat_map in found.heat_maps(ranked[:MAPPED])],
        "measure": found.measure,
        "score": f"minus {found.ranking.by}"
        if found.ranking.better == MORE
        else found.ranking.name,
        "costs": COSTS,
        "fronts": {cost: [places[id(run)] for run in front(found.runs, cost)] for cost in COSTS},
        "who": WHO,
        "texts": list(texts),
    }


def _run(
    found: Comparison, run: ReportedRun, texts: dict[str, int], common: set[str], most: int
) -> dict[str, Any]:
    numbers = ("score", "baseline", "best_step", "tokens", "seconds", "cost")
    return {
        "name": run.name,
        "label": found.label(run) or run.name,
        "state": run.state,
        "counts": run.counts,
        **{name: _finite(getattr(run, name)) for name in numbers},
        "values": {key: _plain(run.value(key)) for key in found.keys},
        "train": train_curve(run, most=most),
        "valid": valid_curve(run, most=most),
        "rewards": reward_curves(run, most=most),
        "samples": [
            [texts.setdefault(sample[who], len(texts)) for who in WHO] for sample in run.samples
        ],
        "config": {key: written(v) for key, v in run.config.items() if key not in common},
    }


def _parameter(found: Comparison, key: str) -> dict[str, Any]:
    """An axis: places of its values, on a log scale where numbers span a decade."""
    values = [run.value(key) for run in found.runs if run.counts]
    numeric = all(map(is_number, values))
    bins = Bins(values)
    low = min(values) if numeric else 0
    return {
        "key": key,
        "name": found.names[key],
        "values": [_plain(value) for value in bins.values],
        "log": bool(numeric and low > 0 and max(values) >= 10 * low),
    }


def _common(runs: Sequence[ReportedRun]) -> set[str]:
    """Keys that every run has, with the same value."""
    described = [run.config for run in runs if run.config]
    if not described:
        return set()
    first, *others = described
    return {
        key for key, value in first.items() if all(key in o and o[key] == value for o in others)
    }


def _plain(value: Any) -> Any:
    return value if is_number(value) and isfinite(value) else written(value)


def _finite(value: Any) -> Any:
    return value if value is None or isfinite(value) else None
