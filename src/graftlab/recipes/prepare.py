"""Making the data set that a spec describes: its walk into a folder that appears whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftlab.errors import DataError
from graftlab.recipes.spec import JOINT, PrepareSpec

if TYPE_CHECKING:
    from graftlab.recipes.pipeline import Pipeline, PipelineBranch, StepCounts
    from graftlab.recipes.record import Drop, Record


@dataclass(frozen=True, slots=True)
class Prepared:
    """What was made, and where it lies."""

    folder: Path
    rows: dict[str, Counter[str]]
    """Side (train, valid, test) -> source -> rows."""
    tallies: list[StepCounts]
    """What every step did, in the order of the walk."""


def prepare(spec: PrepareSpec, *, key: str | None = None, shown: bool = False) -> Prepared:
    """Make the data set that `spec` describes. The folder appears whole.

    `key` is the one that the result must have (key.py); the progress of the steps is `shown`, or
    nothing is printed. Raises ConfigError, ModelError, RewriterError or DataError.
    """
    from graftlab.console import console, say
    from graftlab.files.building import building
    from graftlab.files.checksums import write_checksums
    from graftlab.files.locks import hold_beside
    from graftlab.progress import Progress
    from graftlab.recipes.folder import OURS, check_out, writing_result
    from graftlab.recipes.key import key_of
    from graftlab.recipes.manifest import write
    from graftlab.recipes.report import write_report
    from graftlab.recipes.spool import spooling_in

    spec.check()
    target = check_out(spec.out)
    with (
        hold_beside(target, tell=say),
        _steps(spec) as steps,
        writing_result(target),
        building(target, replaces=OURS) as folder,
        spooling_in(folder),
    ):
        walk = pipeline(spec, steps)
        sides = ["train", "valid", *(["test"] if spec.split.test else [])]
        names = (tally.step for tally in walk.tallies)
        with Progress(*names, console=console(), shown=shown) as progress:
            walk.watch = lambda: progress.show(walk.progress())
            rows = walk.run(folder, sides=sides)
        if not rows["train"].total():
            raise DataError("No row is left to train on: every one was dropped or held out.")
        found = key_of(spec)
        if key not in (None, found):
            raise DataError("The inputs changed while they were being read: start again.")
        write(folder, spec, found, walk.tallies, rows)
        write_report(folder)
        write_checksums(folder)
    return Prepared(target, rows, walk.tallies)


@contextmanager
def _steps(spec: PrepareSpec) -> Iterator[dict[str, Any]]:
    """The sources' steps; the persona's with a rewriter that is at hand meanwhile."""
    steps = spec.steps()
    if not spec.makes_pairs:
        yield steps
        return
    rewriter = spec.asked_rewriter
    with rewriter.opened() if rewriter is not None else nullcontext() as rewrite:
        yield steps | {"persona": spec.persona.with_rewriter(rewrite)}


def pipeline(spec: PrepareSpec, steps: dict[str, Any] | None = None) -> Pipeline:
    """The walk that the spec describes, not yet begun; `steps` in place of the spec's own."""
    from graftlab.recipes.pipeline import Pipeline

    joint = [(name, getattr(spec, name)) for name in JOINT]
    own = spec.steps() if steps is None else steps
    return Pipeline([_branch(spec, name, own) for name in spec.sources], joint, spec.mix)


def _branch(spec: PrepareSpec, name: str, steps: dict[str, Any]) -> PipelineBranch:
    from graftlab.recipes.pipeline import PipelineBranch
    from graftlab.recipes.sources import read_source

    source, metadata = spec.sources[name], set[str]()

    def read(drop: Drop) -> Iterator[Record]:
        if source.make is not None:
            made: Iterator[Record] = spec.makers()[source.make].records()
            return made
        return read_source(name, source, drop, metadata=metadata)

    own = [(step, steps[step]) for step in source.steps]
    first = "read" if source.make is None else "make"
    return PipelineBranch(name, read, own, first, metadata)
