"""Finds two constants of `src/graftlab/planning/memory.py` in measured peaks: LOSS and FRAYS.

    peak - everything else  =  LOSS x moving  +  FRAYS x tokens x root(hidden x (batches - 1))

by least squares, each run weighted by its peak, as it is the relative error that counts. START and
KERNEL are not fitted but measured: run the two smallest of the set with a heap that hands
everything back (MALLOC_TRIM_THRESHOLD_=131072 MALLOC_MMAP_THRESHOLD_=65536); then peaks are what is
in use.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from graftlab.planning.plan import Plan

Measured = Sequence[tuple["Plan", float]]
"""Plans, and the bytes that were measured for them."""


def refit(measured: Measured) -> list[str]:
    """The constants, and how far off a run is when it is left out of the fit; as Markdown."""
    features, rest = _features(measured)
    peaks = np.array([peak for _, peak in measured])
    everyone = np.ones(len(peaks), bool)
    loss, frays = _solve(features, rest, peaks, everyone)
    left_out = []
    for index in range(len(peaks)):
        others = everyone.copy()
        others[index] = False
        guess = features[index] @ _solve(features, rest, peaks, others)
        left_out.append((guess - rest[index]) / peaks[index])
    off = np.abs(left_out)
    return [
        f"`LOSS` {loss:.2f}, `FRAYS` {frays:,.0f}. Each run predicted by the others: "
        f"{np.sqrt((off**2).mean()):.1%} off (root mean square), {off.max():.1%} at worst.",
        "",
    ]


def _features(measured: Measured) -> tuple[np.ndarray, np.ndarray]:
    """(n, 2) what the constants multiply, and (n,) bytes that they have to explain."""
    from graftlab.planning.memory import FRAYS, LOSS, frayed

    rows, rest = [], []
    for plan, peak in measured:
        memory, holes = plan.memory, frayed(plan.shape, plan.load)
        moving = memory.activations + memory.logits + memory.working
        rows.append((moving, holes))
        rest.append(peak - (memory.total - LOSS["cpu"] * moving - FRAYS * holes))
    return np.array(rows), np.array(rest)


def _solve(
    features: np.ndarray, rest: np.ndarray, peaks: np.ndarray, chosen: np.ndarray
) -> np.ndarray:
    weights = 1 / peaks[chosen]
    found, *_ = np.linalg.lstsq(
        features[chosen] * weights[:, None], rest[chosen] * weights, rcond=None
    )
    return found
