"""A whole plan: memory, changes, hours and money on every machine, advice, limits."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from graftlab.errors import DataError
from graftlab.machine import Machine
from graftlab.models.quantization.base import Codes
from graftlab.planning.advice import Advice
from graftlab.planning.changes import Change, Knobs, changes, together
from graftlab.planning.memory import Memory, estimate_memory
from graftlab.planning.shape import Shape
from graftlab.planning.timing import Bill, bill, rate, work
from graftlab.planning.workload import Workload
from graftlab.training.budget import Limits


@dataclass(frozen=True, slots=True)
class Probe:
    """What a few real steps on this machine measured."""

    tokens_per_second: float
    peak_bytes: float
    steps: int
    compiled: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What a plan is asked: the run, and how it changes when knobs are turned."""

    knobs: Knobs
    shape_at: Callable[[int], Shape]
    """Rank -> the base with an adapter of that rank."""
    load_at: Callable[[Knobs], Workload]
    """Batch size, accumulation and row length -> the workload."""
    machine: Machine
    machines: Mapping[str, Machine]
    limits: Limits
    dtype: str
    """What matrices are multiplied in: fp32, bf16 or fp16; a processor may upcast them."""
    measured_peak: float | None = None
    """FLOP/s of this machine's processor, for machines without rates of their own."""
    probe: Probe | None = None
    max_minutes: float | None = None
    done_steps: int = 0

    def memory(self, knobs: Knobs, *, kind: str | None = None) -> Memory:
        """The memory of the run with these knobs, on the asked machine or one of `kind`."""
        settings = replace(knobs.settings, kind=kind or self.machine.kind)
        return estimate_memory(self.shape_at(knobs.rank), self.load_at(knobs), settings)


@dataclass(frozen=True, slots=True)
class MachineRow:
    """One machine: whether the run fits, and its bill (None where nothing is known of its rate)."""

    name: str
    machine: Machine
    needed: float
    fits: bool
    bill: Bill | None


@dataclass(frozen=True, slots=True)
class Plan:
    """The answer; sizes in bytes."""

    title: str
    shape: Shape
    load: Workload
    knobs: Knobs
    memory: Memory
    toggled: Memory
    """With gradient checkpointing the other way round."""
    machine: Machine
    bill: Bill | None
    rows: list[MachineRow]
    changes: list[Change]
    advice: list[Advice]
    broken: list[str]
    """Limits of the budget that would be passed."""
    probe: Probe | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def fits(self) -> bool:
        return self.memory.total <= self.machine.bytes


def answer(
    question: Question, *, title: str, advice: Sequence[Advice], notes: Sequence[str]
) -> Plan:
    """The plan of a run."""
    knobs, machine = question.knobs, question.machine
    shape, load = question.shape_at(knobs.rank), question.load_at(knobs)
    memory = question.memory(knobs)
    turned = replace(
        knobs, settings=replace(knobs.settings, checkpointing=not knobs.settings.checkpointing)
    )
    found = bill_of(question, machine, probed=True)
    limit = machine.bytes
    return Plan(
        title=title,
        shape=shape,
        load=load,
        knobs=knobs,
        memory=memory,
        toggled=question.memory(turned),
        machine=machine,
        bill=found,
        rows=_rows(question),
        changes=_changes(question, limit) if memory.total > limit else [],
        advice=list(advice),
        broken=question.limits.passed(hours=found.hours, cost=found.cost) if found else [],
        probe=question.probe,
        notes=list(notes),
    )


def _changes(question: Question, limit: float) -> list[Change]:
    def total(knobs: Knobs) -> float:
        try:
            return question.memory(knobs).total
        except DataError:  # rows so short that no document is within them
            return math.inf

    single = changes(question.knobs, total, limit)
    if any(change.fits for change in single):
        return single
    return [*single, *together(question.knobs, total, limit)]


def _rows(question: Question) -> list[MachineRow]:
    rows = []
    for name, machine in question.machines.items():
        needed = question.memory(question.knobs, kind=machine.kind).total
        found = bill_of(question, machine, probed=machine == question.machine)
        rows.append(MachineRow(name, machine, needed, needed <= machine.bytes, found))
    return rows


def bill_of(question: Question, machine: Machine, *, probed: bool = False) -> Bill | None:
    """What the run takes on `machine`, by its rates or the probe's; None where none is known."""
    shape, load = question.shape_at(question.knobs.rank), question.load_at(question.knobs)
    is_cpu = machine.kind == "cpu"
    dtype = "fp32" if is_cpu and question.knobs.settings.upcast else question.dtype
    flops = rate(machine, dtype, question.measured_peak if is_cpu else None)
    if flops is None:
        return None
    here = probed and question.probe is not None and is_cpu
    settings = question.knobs.settings
    codes = settings.quantization if isinstance(settings.quantization, Codes) else None
    needed = work(shape, load, checkpointing=settings.checkpointing, codes=codes)
    return bill(
        needed,
        load,
        machine,
        flops=flops,
        dtype=dtype,
        tokens_per_second=question.probe.tokens_per_second if here and question.probe else None,
        done_steps=question.done_steps,
        max_minutes=question.max_minutes,
    )
