"""The verb `prepare`: from raw files to a data set with a reason for every row that left.

Run as:  graftlab prepare corpus=FILE out=DIR
         graftlab prepare recipe=systems-theologian corpus=FILE out=DIR
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftlab.errors import ConfigError, DataError, did_you_mean, require_range
from graftlab.recipes.curate import Curate
from graftlab.recipes.decontaminate import Decontaminate
from graftlab.recipes.dedupe import Dedupe
from graftlab.recipes.guards import Guards
from graftlab.recipes.markdown import Markdown
from graftlab.recipes.mix import Mix
from graftlab.recipes.negative import NegativeGuard
from graftlab.recipes.persona import Persona
from graftlab.recipes.sources import SourceSpec
from graftlab.recipes.split import Split

if TYPE_CHECKING:
    from graftlab.recipes.pipeline import Branch, Pipeline, Tally
    from graftlab.recipes.record import Drop, Record

JOINT = ("dedupe", "decontaminate", "split")
"""Fields that are steps for all sources together, in their order; `mix` comes last."""


@dataclass(kw_only=True, slots=True)
class PrepareSpec:
    """`graftlab prepare recipe=NAME corpus=FILE out=DIR`.

    A field whose class has `apply` is a step that `sources.NAME.steps` may name; one whose class
    has `records` is a set that `sources.NAME.make` may name.
    """

    corpus: Any = None
    """The files the recipe starts from: one, a list, a glob, or a folder of .txt."""
    out: str | None = None
    """The folder to make; an earlier result in it is replaced."""
    seed: int = 0
    """Seed of everything that is drawn: the order of rows, what the mix repeats or leaves out."""
    sources: dict[str, SourceSpec] = field(default_factory=dict)
    """Name -> where rows come from and which steps are theirs alone; a recipe sets them."""
    curate: Curate = field(default_factory=Curate)
    persona: Persona = field(default_factory=Persona)
    guards: Guards = field(default_factory=Guards)
    markdown: Markdown = field(default_factory=Markdown)
    negative: NegativeGuard = field(default_factory=NegativeGuard)
    dedupe: Dedupe = field(default_factory=Dedupe)
    decontaminate: Decontaminate = field(default_factory=Decontaminate)
    split: Split = field(default_factory=Split)
    mix: Mix = field(default_factory=Mix)

    def __post_init__(self) -> None:
        require_range("seed", self.seed, least=0)
        problems = list(_problems(self))
        if problems:
            raise ConfigError("\n".join(problems))

    def check(self) -> None:
        """Raise ConfigError unless every file is there and the result has a place."""
        from graftlab.recipes.folder import check_out

        self.check_inputs()
        check_out(self.out)

    def check_inputs(self) -> None:
        """Raise ConfigError unless every file is there.

        Steps in use that have a `check` of their own are asked as well.
        """
        for name, source in self.sources.items():
            source.check(name)
        named = {step for source in self.sources.values() for step in [*source.steps, source.make]}
        for name, part in _having(self, "check").items():
            if name in named or name in JOINT:
                part.check()

    def inputs(self) -> dict[str, list[Path]]:
        """The files that are read, by source; those of the step `decontaminate` under its name."""
        read = {name: s.paths(name) for name, s in self.sources.items() if s.make is None}
        return read | {"decontaminate": self.decontaminate.paths()}

    @property
    def taught(self) -> bool:
        """Whether a source passes the persona step, and so its teacher."""
        return any("persona" in source.steps for source in self.sources.values())

    def steps(self) -> dict[str, Any]:
        """The steps that a source may have, by name."""
        return _having(self, "apply", without=(*JOINT, "mix"))

    def makers(self) -> dict[str, Any]:
        """The sets that can be made instead of read, by name."""
        return _having(self, "records")


@dataclass(frozen=True, slots=True)
class Prepared:
    """What was made, and where it lies."""

    folder: Path
    rows: dict[str, Counter[str]]
    """Side (train, valid, test) -> source -> rows."""
    tallies: list[Tally]
    """What every step did, in the order of the walk."""


def run(spec: PrepareSpec) -> Prepared:
    """Prepare with a progress display, and print what became of the rows.

    Raises ConfigError or DataError with the fix.
    """
    from graftlab.tasks.progress import Board, summary

    board = Board()
    with board:
        made = prepare(spec, board=board)
    summary(made)
    return made


def prepare(spec: PrepareSpec, *, board: Any = None, key: str | None = None) -> Prepared:
    """Make the data set that `spec` describes; nothing is printed. The folder appears whole.

    `board`, if given, has `show(tallies)`, called often. `key` is the one that the result must
    have (recipe_key.py). Raises ConfigError or DataError.
    """
    from graftlab.files.checksums import write_checksums
    from graftlab.files.locks import hold_beside
    from graftlab.recipes.folder import building, check_out
    from graftlab.recipes.report import write_report
    from graftlab.tracking.console import say

    spec.check()
    target = check_out(spec.out)
    with (
        hold_beside(target, tell=say),
        _taught(spec) as steps,
        building(target) as folder,
    ):
        walk = pipeline(spec, steps)
        if board is not None:
            walk.watch = lambda: board.show(walk.tallies)
        rows = walk.run(folder, sides=_sides(spec))
        _check_rows(rows)
        found = _write_manifest(spec, walk.tallies, rows, folder)
        if key not in (None, found):
            raise DataError("The inputs changed while they were being read: start again.")
        write_report(folder)
        write_checksums(folder)
    return Prepared(target, rows, walk.tallies)


@contextmanager
def _taught(spec: PrepareSpec) -> Iterator[dict[str, Any]]:
    """The sources' steps; a persona whose teacher is a model of ours has it loaded meanwhile."""
    from graftlab.recipes.teachers.local import LocalTeacher

    steps, teacher = spec.steps(), spec.persona.teacher
    if not spec.taught or not isinstance(teacher, LocalTeacher):
        yield steps
        return
    from graftlab.tasks.teacher import speaking

    with speaking(teacher) as generate:
        yield steps | {"persona": spec.persona.taught_by(teacher.taught_by(generate))}


def pipeline(spec: PrepareSpec, steps: dict[str, Any] | None = None) -> Pipeline:
    """The walk that the spec describes, not yet begun; `steps` in place of the spec's own."""
    from graftlab.recipes.pipeline import Pipeline

    joint = [(name, getattr(spec, name)) for name in JOINT]
    own = spec.steps() if steps is None else steps
    return Pipeline([_branch(spec, name, own) for name in spec.sources], joint, spec.mix)


def _branch(spec: PrepareSpec, name: str, steps: dict[str, Any]) -> Branch:
    from graftlab.recipes.pipeline import Branch
    from graftlab.recipes.sources import read_source

    source, metadata = spec.sources[name], set[str]()

    def read(drop: Drop) -> Iterator[Record]:
        if source.make is not None:
            made: Iterator[Record] = spec.makers()[source.make].records()
            return made
        return read_source(name, source, drop, metadata=metadata)

    own = [(step, steps[step]) for step in source.steps]
    return Branch(name, read, own, made=source.make is not None, metadata=metadata)


def _problems(spec: PrepareSpec) -> Iterator[str]:
    """What does not fit together, one line each."""
    if not spec.sources:
        yield "There is no source: choose a recipe (recipe=NAME) or give sources.NAME.files=FILE."
    steps, makers = spec.steps(), spec.makers()
    for name, source in spec.sources.items():
        for step in source.steps:
            if step not in steps:
                yield _unknown(f"sources.{name}.steps", step, steps)
        if source.make is not None and source.make not in makers:
            yield _unknown(f"sources.{name}.make", source.make, makers)
    if spec.mix.weights:
        for name in spec.mix.weights:
            if name not in spec.sources:
                yield _unknown("mix.weights", name, spec.sources)
        for name in spec.sources:
            if name not in spec.mix.weights:
                yield f"mix.weights gives {name} no weight: mix.weights.{name}=1, or 0 to leave out"


def _unknown(key: str, name: str, choices: dict[str, Any]) -> str:
    known = ", ".join(choices) or "none here"
    return f"{key}: `{name}` is not one of {known}.{did_you_mean(name, choices)}"


def _having(spec: PrepareSpec, method: str, *, without: tuple[str, ...] = ()) -> dict[str, Any]:
    values = {f.name: getattr(spec, f.name) for f in fields(spec) if f.name not in without}
    return {name: value for name, value in values.items() if hasattr(value, method)}


def _sides(spec: PrepareSpec) -> list[str]:
    return ["train", "valid", *(["test"] if spec.split.test else [])]


def _check_rows(rows: dict[str, Counter[str]]) -> None:
    if not rows["train"].total():
        raise DataError("No row is left to train on: every one was dropped or held out.")


def _write_manifest(
    spec: PrepareSpec, tallies: list[Tally], rows: dict[str, Counter[str]], folder: Path
) -> str:
    """The key of the result, which the manifest holds."""
    from graftlab.recipes.manifest import manifest, write
    from graftlab.tasks.recipe_key import key_of

    key = key_of(spec)
    content = manifest(
        key=key,
        seed=spec.seed,
        inputs=spec.inputs(),
        sources=spec.sources,
        tallies=tallies,
        rows=rows,
        folder=folder,
    )
    write(folder, content)
    return key
