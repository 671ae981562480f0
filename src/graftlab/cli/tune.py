"""`graftlab tune`: from the words of a line to a space, checked before any run starts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from graftlab.cli.compose import Composer
from graftlab.cli.overrides import Argument, read_arguments
from graftlab.cli.preflight import CommandLine, verify
from graftlab.cli.space import corners, dimension_of, read_space
from graftlab.cli.sweep import SweepLine, begun_on, may_have_valid, verified
from graftlab.cli.sweep_dir import SWEEPS
from graftlab.cli.winner import proven, write
from graftlab.errors import AUTO, ConfigError
from graftlab.registry import dump
from graftlab.sweeps.identity import sweep_name
from graftlab.sweeps.launchers.auto import AutoLauncher
from graftlab.sweeps.ledger import Ledger
from graftlab.sweeps.prefix_sharing import Length, branch_step
from graftlab.sweeps.run import Order
from graftlab.sweeps.space import Dimension, grid
from graftlab.sweeps.step_counts import lengths_apart
from graftlab.tracking.folder import read_config
from graftlab.training.auto import resolve_auto_now
from graftlab.training.spec import TrainSpec
from graftlab.tuning.run import Outcome, TuneOrder, base_loss, guides
from graftlab.tuning.source import Tuner
from graftlab.tuning.space import LR, RANK, Axis, Space, rates_around
from graftlab.tuning.spec import refuse_keys
from graftlab.tuning.written import NAME, SIGN, Tuned
from graftlab.verbs.tune import TuneSpec

EPOCHS = "epochs"
SETTINGS = {
    "schedule": (
        "schedule=wsd schedule.warmup_ratio=null schedule.warmup_steps=4",
        "tune sets it: longer runs go on from shorter ones",
    ),
    "callbacks": ("callbacks.samples.prompts=0", "tune sets it: only losses are compared"),
    "compile": ("compile=off", "tune sets it: runs learn together on one base"),
    "launcher": ("launcher=joint", "tune sets it: runs learn together on one base"),
}
"""Key -> words that a tuning adds, unless a word begins with the key, and why."""
MOST_CELLS = 1000
"""Of a grid whose cells are all kept in mind."""


def order_of(command: CommandLine, words: Sequence[Argument]) -> TuneOrder:
    """The line as something to run. Raises ConfigError naming everything that cannot be."""
    line, spec, epochs = _read(command, words)
    seeds, spec.sweep.seeds = spec.sweep.seeds, 1  # not of every point, but of the best
    space, numbers = _space(line, spec, epochs)
    ledger = Ledger(line.folder)
    tuner = Tuner(
        ledger=ledger,
        space=space,
        epochs=numbers,
        share=spec.tune.share,
        hours=spec.budget.max_hours,
        most=spec.tune.max_runs,
        seeds=seeds,
        first_seed=spec.seed,
        compose=line.drafts,
        base_loss=lambda: base_loss(ledger, spec.ranking),
    )
    shortest = {"max_steps": str(space.ladder)}
    verified(line, [point | shortest for point in corners(line.dimensions)])
    return TuneOrder(
        sweep=Order(
            base=line.base,
            sweep=line.base.sweep,
            launcher=line.base.launcher or AutoLauncher(),
            source=tuner,
            folder=line.folder,
            jobs=len(space.cells),
            notes=[_in_words(space, spec, epochs)],
            keeps=sorted(set(space.shared.values())),
        ),
        tuner=tuner,
        trained=spec.train,
    )


def conclude(outcome: Outcome, command: CommandLine, words: Sequence[Argument]) -> None:
    """Write the proposal as an experiment beside its runs, and say how it is used."""
    if outcome.run is None:
        return
    config = read_config(outcome.run / "run.yaml")
    reasons = {key: why for key, (_, why) in SETTINGS.items()}
    reasons |= {word.key: "as typed" for word in words}
    experiment = Tuned(config, outcome.proposal, outcome.folder, reasons)
    target = outcome.folder / "experiment" / f"{NAME}.yaml"
    write(proven(experiment, command), target, sign=SIGN, conf=command.conf)


def _read(command: CommandLine, words: Sequence[Argument]) -> tuple[SweepLine, TuneSpec, list[int]]:
    """The line, its specification, and the numbers of epochs to choose among."""
    typed = {word.key.partition(".")[0] for word in words}
    extra = " ".join(text for key, (text, _) in SETTINGS.items() if key not in typed)
    words = [*words, *read_arguments(extra.split(), command.schema.verb)]
    fixed = [word for word in words if dimension_of(word.hydra, command.schema) is None]
    spec: TuneSpec = verify(command, command.overrides(fixed))
    if spec.max_steps is not None:
        raise ConfigError("max_steps: tune chooses lengths in epochs; give epochs=1,2,4 instead.")
    if (spec.sweep.search, spec.sweep.pruner) != ("grid", "none"):
        raise ConfigError("tune searches and prunes by itself: leave sweep.search and pruner out.")
    if not may_have_valid(spec.data):
        raise ConfigError(
            "tune compares held-out losses: give data.valid=FILE or data.valid_fraction=0.1."
        )
    resolve_auto_now(spec)
    values = spec.tune.space | _values(spec) | spec.sweep.space
    found = read_space(words, space=values, when={}, schema=command.schema)
    refuse_keys([dimension.key for dimension in found])
    grid(found)
    epochs = next((_whole(d) for d in found if d.key == EPOCHS), [int(spec.epochs)])
    dimensions = [d for d in found if d.key != EPOCHS]
    spec.date = spec.date or begun_on(folder := _folder(spec, words, found))
    line = SweepLine(
        base=spec,
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
    return line, spec, epochs


def _values(spec: TuneSpec) -> dict[str, Any]:
    """Values in place of each `auto` of the space."""
    automatic = {key for key, value in spec.tune.space.items() if value == AUTO}
    found: dict[str, Any] = {}
    if LR in automatic:
        found[LR] = ",".join(rates_around(float(spec.lr), below=2, above=3))
    if RANK in automatic:
        rank = int(spec.lora.rank)
        found[RANK] = ",".join(str(max(1, rank * n // 4)) for n in (1, 2, 4, 8))
    if EPOCHS in automatic:
        most = int(guides(spec).get(EPOCHS, (spec.epochs, ""))[0])
        several = sorted({max(1, round(most / n)) for n in (4, 2, 1)})
        found[EPOCHS] = ",".join(map(str, several))
    return found


def _whole(dimension: Dimension) -> list[int]:
    """The epochs of a list, ascending."""
    try:
        found = sorted(int(text) for text in dimension.choices or ())
    except ValueError:
        found = [0]
    if found[0] < 1:
        raise ConfigError(f"epochs={dimension.words()}: give whole numbers, as in epochs=1,2,4.")
    return found


def _folder(spec: TuneSpec, words: Sequence[Argument], found: Sequence[Dimension]) -> Path:
    told = next((word for word in words if word.key == "hydra.sweep.dir"), None)
    if told is not None:
        return Path(told.typed.partition("=")[2]).expanduser()
    plain = dump(replace(spec.training(), run_dir=""))
    keys = [dimension.key for dimension in found] or ["seed"]
    return SWEEPS / (spec.sweep.name or f"tune-{sweep_name(plain, keys)}")


def _space(line: SweepLine, spec: TuneSpec, epochs: Sequence[int]) -> tuple[Space, dict[int, int]]:
    """The space, and the epochs of lengths that are whole ones."""
    base = spec.training()
    most = epochs[-1]
    measured = lengths_apart([replace(base, epochs=most), replace(base, epochs=most + 1)])
    if measured is None:
        raise ConfigError(
            "tune counts steps before it starts, and the tokenizer is not on this machine: give "
            "model.path=DIR, or train once so that it is fetched."
        )
    each = measured[0].steps_per_epoch
    numbers = {n * each: n for n in epochs}
    ladder = min(spec.tune.ladder_steps, min(numbers))
    lengths = {steps: _length(base, measured[0], steps) for steps in {ladder, *numbers}}
    space = Space(
        axes=tuple(Axis(d.key, d.choices or ()) for d in line.dimensions),
        ladder=ladder,
        lengths=tuple(sorted(numbers)),
        shared={
            (short, long): step
            for short in lengths
            for long in lengths
            if short < long and (step := branch_step(lengths[short], lengths[long])) > 0
        },
        widens=spec.tune.space.get(LR) == AUTO and LR in [d.key for d in line.dimensions],
    )
    if len(space.cells) > MOST_CELLS:
        raise ConfigError(
            f"the space has {len(space.cells):,} cells, and {MOST_CELLS:,} can be kept in mind: "
            "leave values out, or search: graftlab train -m sweep.search=tpe."
        )
    return space, numbers


def _length(base: TrainSpec, measured: Length, steps: int) -> Length:
    return replace(measured, spec=replace(base, max_steps=steps))


def _in_words(space: Space, spec: TuneSpec, epochs: Sequence[int]) -> str:
    axes = [f"{axis.key}={','.join(axis.values)}" for axis in space.axes]
    keys = " ".join([*axes, f"epochs={','.join(map(str, epochs))}"])
    most = spec.tune.share * space.grid_steps
    return (
        f"tune: {keys}; a grid of {len(space.cells)} runs and {space.grid_steps:,} steps, of which "
        f"{most:,.0f} may be spent"
    )
