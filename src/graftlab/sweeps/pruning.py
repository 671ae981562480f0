"""Which jobs go on: verdicts at rungs, from validation losses alone.

A rung is a number of optimizer steps. Jobs whose losses are compared must have the same number of
steps in all: under a decaying schedule a shorter job is ahead of a longer one at every rung.

ASHA (arXiv 1810.05934), in its promoting form: at a rung a job pauses unless it is among the best
1/reduction of those that have reached it. Paused jobs stay candidates as others arrive.

    rung 0   step  20    a b c d e f g h i     9 jobs pause, or go on at once
    rung 1   step  60    a   c       g         the best 3 have gone on
    the end  step 180        c                 the best 1

Nobody waits for anybody, so a job may go on that would not be among the best later: in one moment
at most floor(n / reduction) of n jobs are promotable, over time more of them may have been.

Median (as in Google Vizier): a job stops for good where its best loss so far is worse than the
median of the others' best losses at the same rung.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Mapping, Sequence

LEAST = 4
"""The median says something only when at least this many others have reached the rung."""


def rung_steps(
    first_rung_epochs: float | None, reduction: int, *, steps_per_epoch: int, total_steps: int
) -> list[int]:
    """Optimizer steps of a job's rungs for ASHA: each `reduction` times the last, before its end.

    A first rung inside an epoch is rounded to a whole step. None: two rungs, after a reduction^2-th
    and a reduction-th of the job itself, however its length was given.
    """
    if first_rung_epochs is None:
        # Each from the end: a rounded first one times reduction^2 may lie just before it.
        parts = (max(1, round(total_steps / reduction**power)) for power in (2, 1))
        return sorted({step for step in parts if step < total_steps})
    step = max(1, round(first_rung_epochs * steps_per_epoch))
    steps = []
    while step < total_steps:
        steps.append(step)
        step *= reduction
    return steps


def even_steps(every_epochs: float, *, steps_per_epoch: int, total_steps: int) -> list[int]:
    """Optimizer steps of a job's rungs for the median: every so many epochs, before its end."""
    steps, rung = [], 1
    while (step := max(1, round(rung * every_epochs * steps_per_epoch))) < total_steps:
        steps.append(step)
        rung += 1
    return sorted(set(steps))


def ranking(losses: Mapping[int, float]) -> list[int]:
    """Jobs by their loss, the lowest first, ties by number; without losses that are no numbers."""
    finite = (job for job, loss in losses.items() if math.isfinite(loss))
    return sorted(finite, key=lambda job: (losses[job], job))


def promotable(
    rung_losses: Mapping[int, float], promoted: Collection[int], reduction: int
) -> list[int]:
    """Jobs that may go on from a rung now, the best first.

    `rung_losses` has every job that has ever reached the rung, `promoted` those that went on.
    """
    top = ranking(rung_losses)[: len(rung_losses) // reduction]
    return [job for job in top if job not in promoted]


def goes_on(
    job: int, rung_losses: Mapping[int, float], promoted: Collection[int], reduction: int
) -> bool:
    """Whether a job that has just reached a rung goes on without pausing."""
    return job in promotable(rung_losses, promoted, reduction)


def last_chance(
    rungs: Sequence[Mapping[int, float]],
    promoted: Sequence[Collection[int]],
    finished: Collection[int],
) -> int | None:
    """Who goes on when nobody runs, nobody is promotable, and no job has come to its end.

    The best paused job of the highest rung, so that a sweep too small for its reduction (or one
    whose promoted jobs have failed) still ends with a whole run. `rungs` and `promoted` are listed
    from the first rung on; None when a job has finished, or none is left.
    """
    if finished:
        return None
    for losses, gone in zip(reversed(rungs), reversed(promoted), strict=True):
        left = [job for job in ranking(losses) if job not in gone]
        if left:
            return left[0]
    return None


def falls_behind(best: float, others: Collection[float], least: int = LEAST) -> bool:
    """Whether the median rule stops a job whose best loss so far is `best`.

    `others` are the best losses so far of all other jobs that have reached its rung. A loss that is
    no number counts as the worst there is, and its own job is always stopped.
    """
    if not math.isfinite(best):
        return True
    if len(others) < least:
        return False
    return best > statistics.median(loss if math.isfinite(loss) else math.inf for loss in others)
