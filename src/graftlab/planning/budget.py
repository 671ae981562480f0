"""Runs and sweeps that would pass their budget are refused before anything is loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path

from graftlab.errors import ConfigError
from graftlab.planning.estimate import question_of
from graftlab.planning.lookup_cache import LookupCache
from graftlab.planning.plan import Question, bill_of
from graftlab.planning.timing import Bill
from graftlab.registry import dump
from graftlab.tracking.folder import Found, RunFolder, find_runs
from graftlab.tracking.identity import identity
from graftlab.training.checkpoint import CheckpointStore
from graftlab.training.spec import TrainSpec


def refuse_over_budget(spec: TrainSpec, *, done_steps: int = 0) -> None:
    """Raise ConfigError where a run would pass its `budget`; nothing is loaded for it.

    `done_steps` were taken by an earlier start of the same run, and are paid already.
    """
    _require_device(spec)
    question, _ = question_of(spec, done_steps=done_steps)
    bill = _bill(question)
    broken = spec.budget.passed(hours=bill.hours, cost=bill.cost)
    if broken:
        load = question.load_at(question.knobs)
        about = "" if load.exact else ", token counts estimated"
        raise ConfigError(
            "\n".join(broken)
            + f"\nestimated for {spec.machine.title}, {load.steps:,} steps{about}. Fewer "
            "epochs=N or max_steps=N, a faster machine=NAME, or raise the limit; `graftlab plan` "
            "with the same words shows the whole estimate."
        )


def refuse_sweep_over_budget(specs: Sequence[TrainSpec], *, home: Path | None = None) -> None:
    """Raise ConfigError where the jobs of a sweep together would pass the budget of its first.

    Each job is estimated, base and data once for all of them. `home` is the folder of an earlier
    start: with `resume=auto` what its runs have done is paid. The message names the sum and what
    would fit.
    """
    if not specs or not specs[0].budget.given:
        return
    begun = find_runs(home) if home is not None and home.is_dir() else {}
    cache, hours, cost = LookupCache(), [], []
    for spec in specs:
        _require_device(spec)
        share = _paid_steps(spec, begun)
        if share is None:
            hours.append(0.0)
            cost.append(0.0)
            continue
        bill = _bill(question_of(spec, done_steps=share, cache=cache)[0])
        hours.append(bill.hours)
        cost.append(bill.cost)
    limits = specs[0].budget
    broken = limits.passed(hours=sum(hours), cost=sum(cost))
    if broken:
        lines = [f"{line} for the {len(specs)} jobs of the sweep together" for line in broken]
        raise ConfigError("\n".join([*lines, _what_fits(specs[0], hours, cost)]))


def _what_fits(spec: TrainSpec, hours: Sequence[float], cost: Sequence[float]) -> str:
    """How many jobs, or which share of all, are within the budget."""
    limits = spec.budget
    sums = zip(accumulate(hours), accumulate(cost), strict=True)
    whole = sum(1 for h, c in sums if not limits.passed(hours=h, cost=c))
    shares = [
        limit / needed
        for limit, needed in ((limits.max_hours, sum(hours)), (limits.max_cost, sum(cost)))
        if limit is not None and needed > 0
    ]
    fits = f"the first {whole}" if whole > 1 else ("not even one", "the first")[whole]
    if share := int(100 * min(shares)):
        fits += f", or all with {share}% of their steps (max_steps=N, epochs=N)"
    return (
        f"estimated for {spec.machine.title}, one after the other. Within it: {fits}. Or fewer "
        "values, a faster machine=NAME, a higher limit; `graftlab plan -m` with the same words "
        "shows every job."
    )


def _paid_steps(spec: TrainSpec, begun: Mapping[str, Found]) -> int | None:
    """Steps that an earlier start has done, of the runs by identity; None of a finished one."""
    found = begun.get(identity(dump(spec))) if spec.resume and begun else None
    if found is None:
        return 0
    last = CheckpointStore(RunFolder(found.path).checkpoints).last()
    return None if found.finished else (last.step if last else 0)


def _bill(question: Question) -> Bill:
    bill = bill_of(question, question.machine)
    if bill is None:
        raise ConfigError(
            f"budget: nothing is known of how fast {question.machine.title} is. Give "
            "machine.achieved.bf16=TFLOPS (and fp32), or another machine=NAME."
        )
    return bill


def _require_device(spec: TrainSpec) -> None:
    """A run on a GPU cannot be estimated for a processor."""
    if spec.machine.kind != "cpu" or spec.trainer.accelerator == "cpu":
        return
    from graftlab.training.device import pick_device

    place = pick_device(spec.trainer.accelerator)
    if place.type != "cpu":
        raise ConfigError(
            f"budget: the run is on {place.type}, and the estimate is for machine=cpu. Say which "
            "machine it is: machine=h100, for instance (`graftlab plan --help machine` lists them)."
        )
