"""The walk of `prepare`: sources through their own steps, then together, into the files.

    core      read ▸ curate ▸ persona ─┐
    markdown  read ▸ markdown ─────────┼─▸ dedupe ▸ decontaminate ▸ split ─┬─▸ mix ▸ train.jsonl
    guard     make ────────────────────┘                                   ├─▸ valid.jsonl
                                                                           └─▸ test.jsonl
    every drop, with its step and reason ─▸ rejects.jsonl

Held-out rows are not mixed: each is there once. Everything is a generator; what must see all
records keeps them on disk (spool.py).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import IO, Any

from graftlab.progress import Row
from graftlab.recipes.record import Drop, Record, Step, is_piece
from graftlab.recipes.split import SIDE, SIDES

Watch = Callable[[], None]
Files = Mapping[str, IO[str]]
"""Side -> the file of its rows."""
_EVERY = 64
"""Records between two looks of the watcher."""


@dataclass(slots=True)
class StepCounts:
    """What one step did, counted from outside: rows in are rows kept and rows dropped."""

    step: str
    """`dedupe`, or `core: curate` for a step of one source."""
    parameters: Any = None
    """The step's own dataclass, for the manifest."""
    taken: Counter[str] = field(default_factory=Counter)
    """Source -> records that came in."""
    given: Counter[str] = field(default_factory=Counter)
    """Source -> records that went out; more than were kept where one becomes several."""
    reasons: Counter[str] = field(default_factory=Counter)
    """Reason -> records dropped."""
    parts: Counter[str] = field(default_factory=Counter)
    """Reason -> parts dropped of records that may have gone on, such as the notes in a text."""
    metadata: set[str] = field(default_factory=set)
    """Keys of the rows that say where they come from, and are left behind."""
    finished: bool = False

    @property
    def dropped(self) -> int:
        return self.reasons.total()

    @property
    def kept(self) -> int:
        return self.taken.total() - self.dropped


@dataclass(frozen=True, slots=True)
class PipelineBranch:
    """One source: how its records come about, and the steps that are its own."""

    name: str
    read: Callable[[Drop], Iterator[Record]]
    steps: Sequence[tuple[str, Step]] = ()
    first: str = "read"
    """What `read` is called: make, where the records are made rather than read."""
    metadata: set[str] = field(default_factory=set)
    """Filled while they are read: keys of the rows that are left behind."""


@dataclass(slots=True)
class Pipeline:
    """Branches and joint steps; `run` writes the files and counts."""

    branches: Sequence[PipelineBranch]
    joint: Sequence[tuple[str, Step]]
    """Steps that see all sources together, in order; the last of them may deal sides."""
    mix: Step
    watch: Watch = lambda: None
    """Called often while records pass, for a progress display."""
    tallies: list[StepCounts] = field(init=False)
    """One per step, in the order of the walk."""

    def __post_init__(self) -> None:
        self.tallies = [
            StepCounts(f"{branch.name}: {name}", getattr(step, "parameters", step))
            for branch in self.branches
            for name, step in [(branch.first, None), *branch.steps]
        ]
        self.tallies += [StepCounts(name, step) for name, step in [*self.joint, ("mix", self.mix)]]

    def run(self, folder: Path, *, sides: Sequence[str] = SIDES) -> dict[str, Counter[str]]:
        """Write `SIDE.jsonl` for every side, and rejects.jsonl; returns rows per side and source.

        Raises what the steps raise; nothing is tidied up then, so `folder` should be a draft.
        """
        rows: dict[str, Counter[str]] = {side: Counter() for side in sides}
        tallies = iter(self.tallies)
        with ExitStack() as stack:
            files = {
                name: stack.enter_context(_created(folder / f"{name}.jsonl"))
                for name in [*sides, "rejects"]
            }
            rejects = files["rejects"]
            streams = []
            for branch in self.branches:
                records = self._read(branch, next(tallies), rejects)
                for _, step in branch.steps:
                    records = self._counted(step, records, next(tallies), rejects)
                streams.append(records)
            records = chain.from_iterable(streams)
            for _, step in self.joint:
                records = self._counted(step, records, next(tallies), rejects)
            records = _hold_out(records, files, rows)
            for record in self._counted(self.mix, records, next(tallies), rejects):
                _write_row(record, "train", files, rows)
        return rows

    def progress(self) -> list[Row]:
        """How far every step is; of how many rows, once the one before has given all of its own."""
        told, before = [], None
        for tally in self.tallies:
            done = tally.given.total() + tally.dropped
            known = tally.finished or (before is not None and before.finished)
            total = max(done, tally.taken.total()) or None
            dropped = f", {tally.dropped:,} dropped" if tally.dropped else ""
            note = f"{tally.taken.total():,} in{dropped}, {tally.given.total():,} out"
            row = Row(done, total if known else None, note if tally.taken else "", counted=False)
            told.append(row)
            before = tally
        return told

    def _read(
        self, branch: PipelineBranch, tally: StepCounts, rejects: IO[str]
    ) -> Iterator[Record]:
        """A source's records; each counts as in, whether it is kept or dropped."""

        def drop(record: Record, reason: str, detail: str = "") -> None:
            tally.taken[branch.name] += 1
            tally.reasons[reason] += 1
            _reject(rejects, tally.step, record, reason, detail)

        tally.metadata = branch.metadata
        for number, record in enumerate(branch.read(drop)):
            tally.taken[branch.name] += 1
            tally.given[branch.name] += 1
            if number % _EVERY == 0:
                self.watch()
            yield replace(record, source=branch.name)
        tally.finished = True

    def _counted(
        self, step: Step, records: Iterator[Record], tally: StepCounts, rejects: IO[str]
    ) -> Iterator[Record]:
        """The step's output, with everything that passes counted."""

        def drop(record: Record, reason: str, detail: str = "") -> None:
            (tally.parts if is_piece(record) else tally.reasons)[reason] += 1
            _reject(rejects, tally.step, record, reason, detail)

        def incoming() -> Iterator[Record]:
            for record in records:
                tally.taken[record.source] += 1
                yield record

        source = incoming()
        for number, record in enumerate(step.apply(source, drop)):
            tally.given[record.source] += 1
            if number % _EVERY == 0:
                self.watch()
            yield record
        tally.finished = True
        assert next(source, None) is None, f"{tally.step} stopped before its input ended"
        assert 0 <= tally.kept <= tally.given.total(), f"{tally.step} lost rows without a reason"


def _created(path: Path) -> IO[str]:
    return path.open("w", encoding="utf-8", errors="backslashreplace")


def _write(file: IO[str], row: dict[str, Any]) -> None:
    # Parquet may hold dates and bytes where JSON has neither.
    file.write(json.dumps(row, ensure_ascii=False, default=str) + "\n")


def _reject(rejects: IO[str], step: str, record: Record, reason: str, detail: str) -> None:
    row = {"step": step, "reason": reason, "detail": detail, "origin": record.origin}
    labels = {"labels": record.labels} if record.labels else {}
    rest = {"source": record.source, "kind": record.kind, **labels, "record": record.body}
    _write(rejects, row | rest)


def _hold_out(
    records: Iterator[Record], files: Files, rows: dict[str, Counter[str]]
) -> Iterator[Record]:
    """The training records; the others are written as they pass."""
    for record in records:
        side = record.labels.get(SIDE, "train")
        if side == "train":
            yield record
        else:
            _write_row(record, side, files, rows)


def _write_row(record: Record, side: str, files: Files, rows: dict[str, Counter[str]]) -> None:
    labels = {name: value for name, value in record.labels.items() if name != SIDE}
    rest = {"source": record.source} | ({"labels": labels} if labels else {})
    _write(files[side], record.body | rest)
    rows[side][record.source] += 1
