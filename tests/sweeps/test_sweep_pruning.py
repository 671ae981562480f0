"""Rungs and verdicts: whatever the losses and their order, the best goes on and few others do."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graftlab.sweeps.jobs import Rung
from graftlab.sweeps.pruning import (
    even_steps,
    falls_behind,
    goes_on,
    last_chance,
    promotable,
    ranking,
    rung_steps,
)
from graftlab.sweeps.rules import Rules
from graftlab.sweeps.spec import Sweep as Settings

LOSSES = st.dictionaries(
    st.integers(0, 40),
    st.floats(0, 5) | st.sampled_from([1.0, 2.0, math.nan, math.inf, -math.inf]),
    max_size=30,
)
REDUCTIONS = st.integers(2, 5)


def test_rungs_lie_before_the_end_and_grow() -> None:
    assert rung_steps(1, 3, steps_per_epoch=20, total_steps=180) == [20, 60]
    assert rung_steps(1, 3, steps_per_epoch=20, total_steps=60) == [20]
    assert rung_steps(0.1, 4, steps_per_epoch=3, total_steps=17) == [1, 4, 16]
    assert even_steps(1, steps_per_epoch=5, total_steps=15) == [5, 10]
    assert even_steps(0.5, steps_per_epoch=5, total_steps=11) == [2, 5, 8, 10]
    assert even_steps(0.01, steps_per_epoch=3, total_steps=3) == [1, 2]


@given(total=st.integers(1, 5000), reduction=REDUCTIONS, per_epoch=st.integers(1, 900))
def test_without_a_first_rung_each_run_has_two_of_its_own(
    total: int, reduction: int, per_epoch: int
) -> None:
    """Whatever gave its length: whole epochs, a part of one (max_steps), or a swept number."""
    found = Rules.of(Settings(pruner="asha", reduction=reduction)).steps(
        steps_per_epoch=per_epoch, total_steps=total
    )
    assert all(0 < step < total for step in found)
    assert found == sorted(set(found))
    assert found or total == 1
    if total >= reduction**2:
        assert found == [round(total / reduction**2), round(total / reduction)]


def test_rules_without_a_first_rung() -> None:
    halving, median = Rules.of(Settings(pruner="asha")), Rules.of(Settings(pruner="median"))
    assert halving.steps(steps_per_epoch=20, total_steps=180) == [20, 60]
    assert halving.steps(steps_per_epoch=900, total_steps=90) == [10, 30]  # max_steps=90
    assert median.steps(steps_per_epoch=20, total_steps=60) == [20, 40]
    told = Rules.of(Settings(pruner="asha", first_rung=0.5))
    assert told.steps(steps_per_epoch=20, total_steps=60) == [10, 30]


@pytest.mark.parametrize("pruner", ["asha", "median"])
def test_a_job_without_a_loss_is_not_judged(pruner: str) -> None:
    rules = Rules.of(Settings(pruner=pruner))
    assert rules.verdict(1, (9, 3), {}) is None
    assert rules.verdict(1, (9, 3), {(9, 3): Rung({0: 1.0})}) is None


def test_the_example_of_the_docstring() -> None:
    losses = {job: float(loss) for job, loss in enumerate([3, 9, 1, 8, 7, 6, 2, 5, 4])}
    assert promotable(losses, set(), 3) == [2, 6, 0]
    assert promotable(losses, {2, 6}, 3) == [0]
    assert promotable({2: 1.0, 6: 1.5, 0: 1.2}, set(), 3) == [2]


@given(losses=LOSSES, promoted=st.sets(st.integers(0, 40)), reduction=REDUCTIONS)
def test_promotable_jobs(losses: dict[int, float], promoted: set[int], reduction: int) -> None:
    """Few, finite, new, and better than all that are left behind; whatever order they came in."""
    found = promotable(losses, promoted, reduction)
    assert len(found) <= len(losses) // reduction
    assert not set(found) & promoted
    assert all(math.isfinite(losses[job]) for job in found)
    left = [j for j in losses if j not in promoted and j not in found and math.isfinite(losses[j])]
    assert all((losses[a], a) < (losses[b], b) for a in found for b in left)
    assert found == sorted(found, key=lambda job: (losses[job], job))
    shuffled = dict(random.Random(1).sample(sorted(losses.items()), len(losses)))
    assert promotable(shuffled, promoted, reduction) == found
    assert all(goes_on(job, losses, promoted, reduction) == (job in found) for job in losses)


@given(losses=LOSSES, reduction=REDUCTIONS)
def test_the_best_of_enough_jobs_is_promotable(losses: dict[int, float], reduction: int) -> None:
    best = ranking(losses)[:1]
    if len(losses) >= reduction:
        assert promotable(losses, set(), reduction)[:1] == best
    else:
        assert promotable(losses, set(), reduction) == []
        assert last_chance([losses], [set()], []) == (best[0] if best else None)


CURVES = st.lists(
    st.lists(st.floats(0, 5) | st.just(math.nan), min_size=3, max_size=3), min_size=1, max_size=20
)


class Sweep:
    """Jobs with three rungs each and an end; `slots` of them run at a time."""

    def __init__(self, curves: list[list[float]], reduction: int) -> None:
        self.curves, self.reduction = curves, reduction
        self.rungs: list[dict[int, float]] = [{} for _ in curves[0]]
        self.promoted: list[set[int]] = [set() for _ in curves[0]]
        self.finished: list[int] = []

    def reach(self, job: int, rung: int) -> bool:
        """Report one rung; whether the job goes on without pausing."""
        self.rungs[rung][job] = self.curves[job][rung]
        if not goes_on(job, self.rungs[rung], self.promoted[rung], self.reduction):
            return False
        self.promoted[rung].add(job)
        return True

    def run(self, job: int, rung: int) -> None:
        while rung < len(self.rungs) and self.reach(job, rung):
            rung += 1
        if rung == len(self.rungs):
            self.finished.append(job)

    def resume(self) -> tuple[int, int] | None:
        """The next paused job to go on and the rung it leaves."""
        for rung in reversed(range(len(self.rungs))):
            found = promotable(self.rungs[rung], self.promoted[rung], self.reduction)
            if found:
                return found[0], rung
        job = last_chance(self.rungs, self.promoted, self.finished)
        if job is None:
            return None
        rungs = [n for n, losses in enumerate(self.rungs) if job in losses]
        return job, max(rungs)

    def to_the_end(self, order: list[int], rng: random.Random) -> None:
        waiting = list(order)
        while True:
            paused = self.resume()
            nobody_waits = not waiting
            if nobody_waits and paused is None:
                return
            # Either a new job or a promotable one, as free slots would come by.
            can_promote = paused is not None and (
                nobody_waits or (self._promotes(paused) and rng.random() < 0.5)
            )
            if can_promote:
                assert paused is not None
                job, rung = paused
                self.promoted[rung].add(job)
                self.run(job, rung + 1)
            else:
                self.run(waiting.pop(0), 0)

    def _promotes(self, paused: tuple[int, int]) -> bool:
        job, rung = paused
        return job in promotable(self.rungs[rung], self.promoted[rung], self.reduction)


@given(curves=CURVES, reduction=REDUCTIONS, seed=st.integers(0, 99))
def test_a_whole_sweep(curves: list[list[float]], reduction: int, seed: int) -> None:
    """Every sweep ends, the best of every rung has gone on in it, and somebody has finished."""
    rng = random.Random(seed)
    sweep = Sweep(curves, reduction)
    sweep.to_the_end(rng.sample(range(len(curves)), len(curves)), rng)
    assert set(sweep.rungs[0]) == set(range(len(curves)))
    if any(all(math.isfinite(loss) for loss in curve) for curve in curves):
        assert sweep.finished
    for losses, promoted in zip(sweep.rungs, sweep.promoted, strict=True):
        best = ranking(losses)[:1]
        if len(losses) >= reduction:
            assert set(best) <= promoted
        assert all(math.isfinite(losses[job]) for job in promoted)
    for job in sweep.finished:
        assert all(job in promoted for promoted in sweep.promoted)


@given(curves=CURVES, reduction=REDUCTIONS, seed=st.integers(0, 99))
def test_arriving_together_promotes_few_and_the_same_in_any_order(
    curves: list[list[float]], reduction: int, seed: int
) -> None:
    """All jobs at a rung before anybody is asked: exactly successive halving."""

    def halved(order: list[int]) -> list[set[int]]:
        running, gone = order, []
        for rung in range(3):
            losses = {job: curves[job][rung] for job in running}
            promoted: set[int] = set()
            while found := promotable(losses, promoted, reduction):
                promoted.add(found[0])
            assert len(promoted) <= len(losses) // reduction
            gone.append(promoted)
            running = [job for job in running if job in promoted]
        return gone

    jobs = list(range(len(curves)))
    assert halved(jobs) == halved(random.Random(seed).sample(jobs, len(jobs)))


def test_a_sweep_too_small_for_its_reduction_still_ends_with_a_whole_run() -> None:
    sweep = Sweep([[2.0, 2.0, 2.0], [1.0, 1.0, 1.0]], 3)
    sweep.to_the_end([0, 1], random.Random(0))
    assert sweep.finished == [1]


def test_when_the_promoted_fail_the_next_best_goes_on() -> None:
    sweep = Sweep([[1.0, math.nan, 1.0], [2.0, 2.0, 2.0], [3.0, 3.0, 3.0]], 3)
    sweep.to_the_end([0, 1, 2], random.Random(0))
    assert sweep.finished == [1]


def behind(job: int, losses: Mapping[int, float], least: int = 4) -> bool:
    return falls_behind(losses[job], [loss for o, loss in losses.items() if o != job], least)


@given(losses=LOSSES.filter(bool), data=st.data())
def test_the_median_spares_the_best_and_most(losses: dict[int, float], data: st.DataObject) -> None:
    verdicts = {job: behind(job, losses) for job in losses}
    assert not any(verdicts[job] for job in ranking(losses)[:1])
    finite = [job for job in losses if math.isfinite(losses[job])]
    assert all(verdicts[job] for job in losses.keys() - set(finite))
    assert sum(verdicts[job] for job in finite) <= (len(losses) + 1) // 2
    if len(losses) - 1 < 4:
        assert not any(verdicts[job] for job in finite)
    order = data.draw(st.permutations(sorted(losses)))
    assert {job: behind(job, {o: losses[o] for o in order}) for job in order} == verdicts


def test_the_median_rule_by_example() -> None:
    losses: Mapping[int, float] = {0: 1.0, 1: 2.0, 2: 3.0, 3: 4.0, 4: 2.5}
    assert not behind(4, losses)  # the others' median is 2.5: as good is good enough
    assert behind(2, losses)  # 3.0 against 2.25
    assert not behind(3, {0: 1.0, 1: 2.0, 2: 3.0, 3: 4.0})  # three others are too few
    assert behind(3, {0: 1.0, 1: 2.0, 2: 3.0, 3: 4.0}, least=3)
    assert not behind(4, {0: math.nan, 1: math.inf, 2: math.nan, 3: 1.0, 4: 9.0})
