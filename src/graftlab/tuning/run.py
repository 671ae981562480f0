"""A tuning, from its first run to the proposal; what `graftlab tune` runs."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from graftlab.console import console, say
from graftlab.errors import AUTO, GraftlabError
from graftlab.sweeps.ledger import Ledger
from graftlab.sweeps.run import Order
from graftlab.sweeps.run import run as run_sweep
from graftlab.tracking.ranking import Ranking
from graftlab.tracking.result import Result, few_documents, how_sure
from graftlab.training.auto import resolve_auto
from graftlab.training.spec import TrainSpec
from graftlab.tuning.proposal import EPOCHS, Proposal, propose
from graftlab.tuning.shown import advice, lines, table
from graftlab.tuning.source import Tuner
from graftlab.tuning.written import write_json


@dataclass(kw_only=True, slots=True)
class TuneOrder:
    """What is to be tuned, composed and checked."""

    sweep: Order
    tuner: Tuner
    trained: bool = True
    """Whether only what was trained is proposed."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a tuning has left."""

    proposal: Proposal
    folder: Path
    run: Path | None
    """The run of the proposal, where it was trained."""


def run(order: TuneOrder) -> Outcome:
    """Train round after round, then say and write what came out.

    Raises Interrupted after a signal, when all runs are saved and the same line goes on, and
    GraftlabError where no run came to its end.
    """
    ended = run_sweep(order.sweep)
    tuner, base, ranking = order.tuner, order.sweep.base, order.sweep.base.ranking
    jobs = tuner.ledger.jobs()
    seen, space = tuner.seen(jobs), tuner.reached(jobs)
    found = propose(
        space,
        seen,
        base=tuner.untrained(seen),
        epochs=tuner.epochs,
        must_be_trained=order.trained,
        replicates=tuner.replicates,
    )
    if found is None:
        raise GraftlabError(
            f"Nothing is proposed: no run in {ended.folder} came to its end. The folders have what "
            "went wrong in error.txt; of rates that all diverge, lower ones: lr=1e-5,3e-5,1e-4."
        )
    job = tuner.job(found.cell, jobs)
    folder = ended.folder / job.folder if job is not None and found.trained else None
    found.notes.extend([*advice(found, guides(base)), *sureness(folder)])
    console().print(table(found, ranking))
    for line in lines(found, space, ranking, seconds=tuner.seconds):
        say(line)
    write_json(found, ended.folder, ranking)
    return Outcome(found, ended.folder, folder)


def base_loss(ledger: Ledger, ranking: Ranking) -> float | None:
    """What jobs are compared by, of the base alone, less being better; None where no job knows."""
    for job in ledger.jobs():
        with suppress(GraftlabError, OSError):
            result = Result.read(ledger.folder / job.folder / "result.json")
            if ranking.is_loss and result.baseline is not None:
                return result.baseline
            if not ranking.is_loss and ranking.column in result.base_metrics:
                return ranking.key(result.base_metrics[ranking.column])
    return None


def guides(base: TrainSpec) -> dict[str, tuple[str, str]]:
    """Key -> the value that guides give for this base and this data, and why."""
    spec = copy.deepcopy(base)
    spec.lr, spec.epochs = AUTO, AUTO
    if not spec.lora.full:
        spec.lora.rank = AUTO
    found = {}
    for line in resolve_auto(spec):
        key, _, rest = line.partition("=")
        value, _, why = rest.partition(" (auto: ")
        if key in ("lr", "lora.rank", EPOCHS):
            found[key] = value, why.removesuffix(")")
    return found


def sureness(run: Path | None) -> Sequence[str]:
    """What the held-out rows allow to say of the proposal's run."""
    if run is None:
        return []
    result = Result.read(run / "result.json")
    said = how_sure(result)
    found = [] if said is None else [f"against the base, {said}"]
    number = result.valid_documents
    if number is not None and few_documents(number) is not None:
        found.append(
            f"! The held-out loss is {few_documents(number)}. The regret is that on these rows: "
            "another set of them might choose otherwise."
        )
    return found
