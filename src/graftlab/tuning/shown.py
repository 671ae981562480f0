"""What people are told at the end of a tuning."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from graftlab.console import new_table
from graftlab.errors import counted
from graftlab.progress import clock
from graftlab.tracking.ranking import Ranking
from graftlab.tuning.proposal import LEVEL, Profile, Proposal
from graftlab.tuning.space import Space

if TYPE_CHECKING:
    from rich.table import Table


def table(found: Proposal, ranking: Ranking) -> Table:
    """Each key with its chosen value, and what its other values cost."""
    columns = ["key", "chosen", "other values, and how much worse"]
    shown = new_table(f"proposed by {ranking.name}", columns, left=columns)
    told = {profile.key: profile for profile in found.profiles}
    for key in [*told, *(key for key in found.values if key not in told)]:
        shown.add_row(key, found.values[key], _others(told.get(key), found.values[key]))
    return shown


def _others(profile: Profile | None, chosen: str) -> str:
    if profile is None:
        return "was not varied"
    others = {value: cost for value, cost in profile.values.items() if value != chosen}
    return ", ".join(f"{value}: {cost.middle:+.3f}" for value, cost in others.items())


def lines(found: Proposal, space: Space, ranking: Ranking, *, seconds: float) -> Iterator[str]:
    """The proposal in sentences."""
    loss = f"{ranking.key(found.loss.middle):.4f}"
    how = f"{ranking.name} {loss}" if found.trained else f"{ranking.name} about {loss}, not trained"
    yield f"{how}; the base has {ranking.key(found.base):.4f}"
    regret = found.regret
    yield (
        f"expected regret: {regret.middle:.4f}, {regret.low:.4f} to {regret.high:.4f} ({LEVEL:.0%} "
        f"interval), against the best of all {found.cells}, at {found.share:.0%} of the grid's "
        f"steps ({counted(found.runs, 'run')}, {found.steps:,} steps, {clock(seconds)})"
    )
    yield from found.notes
    if found.gain <= 0:
        yield "! The base itself is no worse: lower rates, fewer epochs or more data may help."
    rate = found.values.get("lr")
    if len(space.rates) > 1 and rate in (space.rates[0], space.rates[-1]):
        yield f"! lr={rate} is the last one that was tried: wider values may be better."
    runs, steps, _ = found.surer
    if runs:
        time = clock(seconds * steps / found.steps) if found.steps else "some time"
        share = found.share + found.share * steps / max(1, found.steps)
        yield (
            f"to be surer: {counted(runs, 'more run')} of what may still be best, {steps:,} steps, "
            f"about {time}: tune.share={min(1.0, share):.2f}"
        )


def advice(found: Proposal, guides: Mapping[str, tuple[str, str]]) -> Iterator[str]:
    """A line for each rule of thumb: whether the runs agree with it."""
    for profile in found.profiles:
        if profile.key in guides:
            value, why = guides[profile.key]
            yield f"{profile.key}: {_judged(profile, found.values[profile.key], value)} ({why})"


def _judged(profile: Profile, chosen: str, advised: str) -> str:
    if float(advised) == float(chosen):
        return f"the guides' {advised} was found as well"
    near = min(profile.values, key=lambda value: _ratio(value, advised))
    if _ratio(near, advised) > 1.6:
        return f"{chosen}; the guides' {advised} is far from all that was tried"
    about = "" if float(near) == float(advised) else f", or {near} here,"
    cost = profile.values[near]
    if float(near) == float(chosen):
        return f"{chosen} is the nearest to the guides' {advised}"
    if cost.low <= 0:
        return f"{chosen}, but the guides' {advised}{about} may be as good: {cost.more()} worse"
    return f"{chosen}; the guides' {advised}{about} is worse by {cost.more()}"


def _ratio(one: str, other: str) -> float:
    high, low = max(float(one), float(other)), min(float(one), float(other))
    return high / low if low > 0 else float("inf")
