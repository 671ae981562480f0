"""Runs side by side: what differs, which are replicates, what is best, and what may be compared."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from statistics import fmean
from typing import Any

from graftlab.errors import counted
from graftlab.reports.run import BROKEN, SEED, ReportedRun
from graftlab.reports.values import MISSING, Bins, in_order, short_names, written
from graftlab.reports.verdict import Interval, Verdict, interval, seeds_to_settle, verdict
from graftlab.tracking.ranking import MORE, Ranking
from graftlab.tracking.result import few_documents

LABELLED = 8
"""Keys that are named where a run is called by what differs."""


@dataclass(frozen=True, slots=True)
class Point:
    """One configuration without its seed, with the runs that may be compared."""

    runs: list[ReportedRun]
    scores: dict[int, float]
    """Seed -> score; the mean of runs that share a seed."""

    @property
    def interval(self) -> Interval:
        return interval(list(self.scores.values()))


@dataclass(frozen=True, slots=True)
class HeatMap:
    """Mean score over everything but two keys; replicates count as one."""

    keys: tuple[str, str]
    """The key across and the key upwards."""
    labels: tuple[list[str], list[str]]
    means: list[list[float | None]]
    """By place upwards, then across; None where no point lies."""
    points: list[list[int]]
    """How many points a mean is of."""


class Comparison:
    """Everything that is told of some runs, derived once."""

    def __init__(self, runs: Sequence[ReportedRun]) -> None:
        self.runs = list(runs)
        self.keys = differing(runs)
        """Keys that are not equal in all runs, the seed last."""
        self.names = short_names(self.keys)
        self.points = points(runs)
        """Best mean first."""
        self.notes = list(notes(runs))
        self.verdict: Verdict | None = None
        if not self.notes:
            self.verdict = verdict([point.scores for point in self.points])

    @cached_property
    def parameters(self) -> list[str]:
        """The differing keys that say something of their own: no seed, and of several that always
        change together only the first.
        """
        kept: dict[tuple[str, ...], str] = {}
        for key in self.keys:
            if key != SEED:
                shape = tuple(written(point.runs[0].value(key)) for point in self.points)
                first = {value: str(n) for n, value in reversed(list(enumerate(shape)))}
                if len(first) > 1:
                    kept.setdefault(tuple(first[value] for value in shape), key)
        return list(kept.values())

    @property
    def measure(self) -> str:
        """What losses are, in words; of several, only that they are."""
        found = measures(self.runs)
        if len(found) > 1:
            return "each run's own measure"
        return next(iter(found), "nats per trained token")

    @property
    def ranking(self) -> Ranking:
        """By what runs are compared; of several, by losses."""
        found = {run.result.ranking for run in self.runs if run.counts and run.result is not None}
        return found.pop() if len(found) == 1 else Ranking()

    @property
    def replicated(self) -> bool:
        """Whether any configuration was run with more than one seed."""
        return any(len(point.scores) > 1 for point in self.points)

    @property
    def winner(self) -> Point | None:
        """The point with the lowest mean; whether it may be called so is the verdict's to say."""
        return self.points[self.verdict.best] if self.verdict else None

    def label(self, run: ReportedRun, *, seed: bool = True) -> str:
        """What differs, in words: `lr=0.001 rank=16`; empty where nothing does."""
        keys = [key for key in self.keys if seed or key != SEED]
        told = [f"{self.names[key]}={self.shown(run, key)}" for key in keys[:LABELLED]]
        more = [f"and {len(keys) - LABELLED} more"] if len(keys) > LABELLED else []
        return " ".join([*told, *more])

    def shown(self, run: ReportedRun, key: str) -> str:
        """A run's value of a key, or the sign for a key that it does not have."""
        present = key in run.config or key in run.swept
        return written(run.value(key)) if present else MISSING

    def heat_maps(self, keys: Sequence[str]) -> Iterator[HeatMap]:
        """One for each pair of keys."""
        for across, upwards in combinations(keys, 2):
            yield heat_map(self.points, across, upwards)

    def sentence(self) -> str:
        """The verdict in words."""
        if self.verdict is None:
            if self.notes:
                return "No winner is named: " + " ".join(self.notes)
            return "No run is finished and validated yet, so nothing is best."
        said = _sentence(self, self.verdict)
        results = [run.result for run in self.runs if run.counts and run.result is not None]
        numbers = [r.valid_documents for r in results if r.valid_documents is not None]
        few = few_documents(min(numbers)) if numbers else None
        return f"{said} The scores are {few}." if few and self.ranking.is_loss else said


def differing(runs: Sequence[ReportedRun]) -> list[str]:
    """Keys whose values are not the same in all runs; what decides nothing is left out.

    A job that has no `run.yaml` yet is known by its swept values alone.
    """
    described = [(run.decisive, bool(run.config)) for run in runs]
    swept = dict.fromkeys(key for run in runs for key in run.swept)
    order = dict.fromkeys([*swept, *(key for values, _ in described for key in values)])
    found = []
    for key in order:
        values = [v.get(key, ...) for v, whole in described if whole or key in v]
        if any(value != values[0] for value in values[1:]):
            found.append(key)
    return sorted(found, key=lambda key: key == SEED)


def points(runs: Sequence[ReportedRun]) -> list[Point]:
    """Replicates together: runs that are the same in everything but the seed."""
    grouped: dict[str, list[ReportedRun]] = {}
    for run in runs:
        if run.counts:
            decisive = {key: value for key, value in run.decisive.items() if key != SEED}
            grouped.setdefault(json.dumps(decisive, sort_keys=True, default=str), []).append(run)
    found = []
    for group in grouped.values():
        by_seed: dict[int, list[float]] = {}
        for run in group:
            by_seed.setdefault(int(run.value(SEED) or 0), []).append(run.score or 0.0)
        found.append(Point(group, {seed: fmean(scores) for seed, scores in by_seed.items()}))
    return sorted(found, key=lambda point: point.interval.mean)


def measures(runs: Sequence[ReportedRun]) -> Counter[str]:
    """What the scores of runs are, and of how many."""
    return Counter(run.measure for run in runs if run.counts and run.measure is not None)


def notes(runs: Sequence[ReportedRun]) -> Iterator[str]:
    """What forbids to compare scores."""
    hashes = Counter(run.card.get("validation data") for run in runs if run.counts)
    if len(hashes) > 1:
        several = ", ".join(
            f"{counted(n, 'run')} on {name or 'an unnamed set'}" for name, n in hashes.items()
        )
        yield (
            f"The runs were validated on different data ({several}), so their scores cannot be "
            "compared."
        )
    found = measures(runs)
    if len(found) > 1:
        several = "; ".join(f"{counted(n, 'run')} by {name}" for name, n in found.items())
        yield (
            f"The runs were judged by different losses ({several}), so their scores cannot be "
            "compared. Of preferences, valid/accuracy can."
        )


def heat_map(found: Sequence[Point], across: str, upwards: str) -> HeatMap:
    """Mean of the points' means at every pair of values (or ranges) of two keys."""
    values = [(p.runs[0].value(across), p.runs[0].value(upwards)) for p in found]
    axes = Bins(x for x, _ in values), Bins(y for _, y in values)
    cells: list[list[list[float]]] = [[[] for _ in axes[0].labels] for _ in axes[1].labels]
    for point, (x, y) in zip(found, values, strict=True):
        cells[axes[1].place(y)][axes[0].place(x)].append(point.interval.mean)
    return HeatMap(
        (across, upwards),
        (axes[0].labels, axes[1].labels),
        [[fmean(cell) if cell else None for cell in row] for row in cells],
        [[len(cell) for cell in row] for row in cells],
    )


def front(runs: Sequence[ReportedRun], cost: str) -> list[ReportedRun]:
    """The Pareto front: the runs that no other is both cheaper than and better.

    `cost` is `seconds`, `tokens` or `cost`; cheapest first.
    """
    priced = [
        (price, run.score, run)
        for run in runs
        if run.counts and run.score is not None and (price := getattr(run, cost)) is not None
    ]
    best = float("inf")
    chosen = []
    for _, score, run in sorted(priced, key=lambda found: found[:2]):
        if score < best:
            best = score
            chosen.append(run)
    return chosen


def failures(runs: Sequence[ReportedRun]) -> list[ReportedRun]:
    """Runs that did not come to their end."""
    return [run for run in runs if run.state in BROKEN]


def values_of(runs: Sequence[ReportedRun], key: str) -> list[Any]:
    """The distinct values of a key, in order."""
    return in_order(run.value(key) for run in runs if key in run.config or key in run.swept)


def _sentence(found: Comparison, judged: Verdict) -> str:
    best = found.points[judged.best]
    mean = best.interval
    spread = "" if mean.half is None else f" ± {mean.half:.4f}"
    value = found.ranking.key(mean.mean)
    scored = f"{value:.4f}{spread} {found.measure} over {_runs(mean.n)}"
    name = found.label(best.runs[0], seed=False)
    told = f"{name or 'this configuration'}: {scored}"
    if not judged.rivals:
        return f"Only one configuration is finished. {told if name else f'It has {scored}'}."
    if judged.wins:
        return f"The winner is {told}; every other is worse by more than chance (95 %)."
    single = any(rival.method == "single" for rival in judged.open.values())
    count = len(judged.open)
    others = f"{count} of {len(judged.rivals)} others" if len(judged.rivals) > 1 else "the other"
    extreme = "Highest" if found.ranking.better == MORE else "Lowest"
    text = f"{extreme} is {told}. It is not distinguishable from {others}: "
    if single:
        return (
            text
            + "single runs say nothing of chance. Repeat them with several seeds: -m sweep.seeds=3."
        )
    needed = seeds_to_settle(judged)
    if needed is None:
        return text + "the difference is too small for any affordable number of seeds."
    return text + f"about {needed} seeds each would settle a difference of this size (power 0.8)."


def _runs(count: int) -> str:
    return "1 run" if count == 1 else f"{count} seeds"
