"""`train -m`: from the words of a line to the jobs of a sweep, all checked before any starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

from graftlab.cli.compose import Composer
from graftlab.cli.overrides import Argument
from graftlab.cli.preflight import CommandLine, built, check_parts, composed, explained, verify
from graftlab.cli.space import checked_word, corners, dimension_of, read_space, swept_texts
from graftlab.cli.sweep_dir import folder_of
from graftlab.console import say
from graftlab.data.prepared import PreparedData
from graftlab.data.source import DataSpec
from graftlab.errors import ConfigError, GraftlabError
from graftlab.files.paths import absolute
from graftlab.registry import dump, restore
from graftlab.sweeps.identity import data_identity, job_identity, job_label
from graftlab.sweeps.jobs import NewJob
from graftlab.sweeps.launchers.auto import AutoLauncher
from graftlab.sweeps.ledger import Ledger
from graftlab.sweeps.prefix_sharing import plan_line, plan_trunks
from graftlab.sweeps.run import Order
from graftlab.sweeps.source import Grid, Search, Source
from graftlab.sweeps.space import Dimension, Point, grid
from graftlab.sweeps.space import check as check_dimensions
from graftlab.sweeps.step_counts import lengths_apart
from graftlab.training.auto import resolve_auto_now
from graftlab.training.spec import TrainSpec
from graftlab.verbs.train import TrainCommand

LEARNERS = ("tpe", "gp")
"""Searches that learn from the losses of earlier jobs."""
OF_ALL = ("sweep", "launcher", "run_dir", "resume", "hydra")
"""Groups that hold for the whole sweep."""
WHOLE = {"experiment", "debug"}
"""Groups whose options are whole runs: without one, a line says little of model and data."""


@dataclass(slots=True, kw_only=True)
class SweepLine:
    """What one command line with `-m` asks for."""

    base: TrainCommand
    """The run without the swept values."""
    dimensions: list[Dimension]
    folder: Path
    composer: Composer
    command: CommandLine

    def drafts(self, point: Point) -> list[NewJob]:
        """The jobs of one point, one for each seed. Raises ConfigError naming the point."""
        seeds = self.base.sweep.seeds
        if seeds == 1:
            return [self._draft(point)]
        first = self.base.seed
        return [self._draft({**point, "seed": str(first + i)}) for i in range(seeds)]

    def _draft(self, point: Point) -> NewJob:
        overrides = [*self.composer.overrides, *(f"{key}={text}" for key, text in point.items())]
        try:
            with explained(self.command, overrides):
                command: TrainCommand = built(self.command, self.composer.compose(point))
                spec = command.training()
                resolve_auto_now(spec)  # a job is the same before and after its data is made
                self._check_losses(spec)
        except GraftlabError as error:
            raise ConfigError(f"{in_words(point)}: {error}") from error
        return self._entry(spec, point)

    def _check_losses(self, spec: TrainSpec) -> None:
        """Raise ConfigError where there would be no validation losses to compare or to learn from,
        if that is known.
        """
        sweep = self.base.sweep
        if not spec.ranking.is_loss:
            return
        if may_have_valid(spec.data):
            return
        own = "" if isinstance(spec.data, PreparedData) else "data.valid=FILE or "
        needs = f"needs validation data: {own}data.valid_fraction=0.1"
        if sweep.pruner != "none":
            raise ConfigError(f"sweep.pruner={sweep.pruner} {needs}.")
        if sweep.search in LEARNERS:
            raise ConfigError(f"sweep.search={sweep.search} {needs}, or take sweep.search=random.")

    def _entry(self, spec: TrainSpec, point: Point) -> NewJob:
        spec.resume, spec.date = None, self.base.date
        if spec.name is None:
            spec.name = in_words(point) or None
        spec.logger.join(self.folder.name)
        config = absolute(dump(spec))
        return NewJob(
            identity=job_identity(config, data_identity(spec.data)),
            label=job_label(point),
            swept=point,
            spec=config,
        )


def read_sweep(command: CommandLine, words: Sequence[Argument]) -> SweepLine:
    """The sweep that the words describe, its first point verified with all its files.

    Raises ConfigError or another GraftlabError with one message for people.
    """
    found = [(word, dimension_of(word.hydra, command.schema)) for word in words]
    fixed = [word for word, dimension in found if dimension is None]
    base, stands_alone = _base(command, words, fixed)
    space, when = base.sweep.space, base.sweep.when
    dimensions = read_space(words, space=space, when=when, schema=command.schema)
    _check(base, dimensions)
    if stands_alone and not any(d.key.split(".")[0] == "data" for d in dimensions):
        resolve_auto_now(base)  # the sweep's name is of its numbers
    folder = folder_of(base, words, dimensions, stands_alone=stands_alone)
    base.date = base.date or begun_on(folder)
    return SweepLine(
        base=base,
        dimensions=dimensions,
        folder=folder,
        composer=Composer(
            command.schema.verb,
            command.overrides(fixed),
            groups=command.schema.groups,
            conf=command.conf,
        ),
        command=command,
    )


def begun_on(folder: Path) -> str:
    """The day on which the sweep began: templates that ask for the date show it in every job."""
    ledger = Ledger(folder)
    begun = ledger.fact("date") if ledger.path.exists() else None
    return str(begun or date.today().isoformat())


def verified(line: SweepLine, points: Sequence[Point]) -> list[NewJob]:
    """Every point's jobs, and each swept value's files looked for; all mistakes told at once."""
    drafts: list[NewJob] = []
    problems: list[str] = []
    seen: set[tuple[str, str]] = set()
    for point in points:
        try:
            drafts += line.drafts(point)
            if fresh := set(point.items()) - seen:
                seen |= fresh
                check_parts(built(line.command, line.composer.compose(point)))
        except GraftlabError as error:
            problems.append(str(error))
    if problems:
        raise ConfigError("\n".join(dict.fromkeys(problems)))
    return drafts


def order_of(line: SweepLine) -> Order:
    """The line as something to run: every job of a grid, or a search that proposes them.

    Raises ConfigError naming everything that cannot be.
    """
    sweep = line.base.sweep
    check_dimensions(line.dimensions)
    if sweep.search == "grid":
        drafts = verified(line, grid(line.dimensions))
        _refuse_over_budget(line, drafts)
        drafts, notes = _share_trunks(line, drafts)
        source: Source = Grid(drafts)
        count = len(drafts)
    else:
        verified(line, list(corners(line.dimensions)))
        notes = []
        source = Search(sweep, line.dimensions, line.drafts, seed=line.base.seed)
        count = (sweep.trials or 1) * sweep.seeds
    return Order(
        base=line.base,
        sweep=sweep,
        launcher=line.base.launcher or AutoLauncher(),
        source=source,
        folder=line.folder,
        jobs=count,
        notes=notes,
    )


def _refuse_over_budget(line: SweepLine, drafts: Sequence[NewJob]) -> None:
    """Raise ConfigError where all jobs together pass the budget; what is done is paid already."""
    if line.base.budget.given:
        from graftlab.planning.budget import refuse_sweep_over_budget

        specs = [restore(TrainSpec, {**draft.spec, "resume": "auto"}) for draft in drafts]
        refuse_sweep_over_budget(specs, home=line.folder)


def _share_trunks(line: SweepLine, drafts: list[NewJob]) -> tuple[list[NewJob], list[str]]:
    """The drafts, those that can with the trunk they branch from, and what that saves in words."""
    if line.base.sweep.pruner != "none":
        return drafts, []  # a pruner stops trunks
    specs = [restore(TrainSpec, draft.spec) for draft in drafts]
    lengths = lengths_apart(specs)
    if lengths is None:
        return drafts, []
    plan = plan_trunks(lengths)
    shared = [
        replace(draft, trunk=drafts[found.trunk].identity, branch_step=found.step)
        if found
        else draft
        for draft, found in zip(drafts, plan, strict=True)
    ]
    begun = _begun(line, drafts)
    earlier = f" (from nothing: {begun} of them have begun)" if begun else ""
    return shared, [plan_line(lengths) + earlier]


def _begun(line: SweepLine, drafts: Sequence[NewJob]) -> int:
    """How many of the jobs an earlier launch has begun, each with the trunk it had."""
    ledger, wanted = Ledger(line.folder), {draft.identity for draft in drafts}
    jobs = ledger.jobs() if ledger.path.exists() else []
    return sum(bool(job.progress) and job.identity in wanted for job in jobs)


def may_have_valid(data: DataSpec) -> bool:
    """Whether runs will have validation losses, as far as it is known before data is read."""
    to_come = isinstance(data, PreparedData) and data.recipe is not None
    if data.valid_fraction > 0 or to_come or not data.has_files:
        return True
    return bool(data.files()[1])


def in_words(point: Mapping[str, str]) -> str:
    return " ".join(f"{key}={text}" for key, text in point.items())


def _swept(
    command: CommandLine, words: Sequence[Argument], fixed: Sequence[Argument]
) -> tuple[list[Dimension], Point]:
    """What is swept, typed or in the space of a sweep's option, and the first point of it.

    Where the fixed words compose to nothing, the space is not known: what was typed then.
    """
    from omegaconf import OmegaConf

    try:
        sweep: Any = OmegaConf.to_container(composed(command, command.overrides(fixed)).sweep)
        space, when = sweep["space"], sweep["when"]
        dimensions = read_space(words, space=space, when=when, schema=command.schema)
        return dimensions, next(corners(dimensions), {})
    except GraftlabError:
        typed = [d for word in words if (d := dimension_of(word.hydra, command.schema)) is not None]
        return typed, {d.key: swept_texts(d)[0] for d in typed}


def _base(
    command: CommandLine, words: Sequence[Argument], fixed: Sequence[Argument]
) -> tuple[TrainCommand, bool]:
    """The run without swept values, and True; with the first of each where it cannot be so."""
    swept, first = _swept(command, words, fixed)
    keys = {dimension.key for dimension in swept}

    def tell(line: str) -> None:
        """A number that `auto` became, unless jobs have others."""
        if line.partition("=")[0] not in keys and not keys & {"model", "data"}:
            say(line)

    overrides = command.overrides(fixed)
    if not keys & WHOLE:
        with suppress(GraftlabError):
            return verify(command, overrides, tell=tell), True
    firsts = [checked_word(key, text, command.schema).hydra for key, text in first.items()]
    return verify(command, [*overrides, *firsts]), False


def _check(base: TrainCommand, dimensions: Sequence[Dimension]) -> None:
    keys = [dimension.key for dimension in dimensions]
    if base.resume not in (None, "auto"):
        raise ConfigError(
            f"resume={base.resume} is one run's folder; a sweep (-m) goes on by itself."
        )
    if base.sweep.seeds > 1 and "seed" in keys:
        raise ConfigError("sweep.seeds and seed=... both sweep the seed: leave one out.")
    if not keys and base.sweep.seeds == 1:
        raise ConfigError(
            "-m sweeps, but no key has several values: lr=1e-4,1e-3, for instance, or "
            "sweep=lr-rank. Without -m this is a single run."
        )
    for key in keys:
        if "@" in key or key == "checkpoint.by" or key.split(".")[0] in OF_ALL:
            raise ConfigError(f"{key} cannot be swept: it is one for the whole sweep.")
