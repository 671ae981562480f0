"""How long, how much energy, how much money: work divided by what a machine achieves."""

from __future__ import annotations

from dataclasses import dataclass

from graftlab.machine import Machine
from graftlab.models.quantization.base import Codes
from graftlab.planning.memory import coded
from graftlab.planning.shape import Shape
from graftlab.planning.workload import Workload

CPU_SHARE = {"fp32": 0.45, "bf16": 0.16, "fp16": 0.16}
"""Share of a processor's measured matrix peak that training reaches, where no probe says better.

Two cores with AMX, hidden sizes 384 and 896, eager: 0.5 in fp32, 0.11 and 0.25 in bf16.
"""

LAYER_SECONDS = {"cpu": 3e-3, "cuda": 2.5e-3, "mps": 6e-3}
"""What starting the operations of one layer's forward and backward pass takes, however small they
are. A GPU computes meanwhile. Measured on a CPU, estimates elsewhere."""
SHAPES, SHAPES_PER_DOCUMENT = 28, 8
"""Shapes of 16-bit products in a micro-batch, and of each document in it."""
WIDEN_SECONDS = {"cpu": 3e-10, "cuda": 2e-12, "mps": 4e-11}
"""Widening one weight that is stored as codes. Measured on a CPU; on others estimated from their
memory's bandwidth."""
KERNEL_SECONDS = 2e-3
"""Compiling one oneDNN kernel: on a CPU every 16-bit product of a new shape waits for its own."""


@dataclass(frozen=True, slots=True)
class ComputeWork:
    """Floating-point operations; a multiply-add counts two."""

    train_token: float
    valid_token: float
    micro_batch: float = 0.0  # whatever its length: DoRA's norms
    widened: float = 0.0  # weights of codes that a micro-batch widens, forward and backward
    layers: int = 0
    shapes: float = 0.0  # of products in a micro-batch that no other had
    reference_token: float = 0.0  # before the first step, of every document


@dataclass(frozen=True, slots=True)
class Bill:
    """What a run takes on one kind of machine, all its processes together."""

    hours: float
    kwh: float
    cost: float  # US dollars
    seconds_per_step: float
    tokens_per_second: float
    reference_hours: float = 0.0  # of `hours`; none where an earlier run has left its numbers


def work(
    shape: Shape, load: Workload, *, checkpointing: bool, codes: Codes | None = None
) -> ComputeWork:
    """Per token of training and of validation.

    Frozen weights: forward and the input's gradient, 4 a weight; trained ones also their own, 6.
    The head runs at labels only. Attention: two products over half the document on average.
    Checkpointing runs every layer's forward once more. A teacher goes forward only, 2 a weight; so
    does the base where it is asked, and the adapter over mismatched answers. Codes are widened in
    each of these passes; those of training are counted.
    """
    head = shape.vocab * shape.hidden * load.labelled
    width = shape.heads * shape.head_dim
    attention = 2 * 2 * width * (load.mean_length / 2) * shape.layers
    base = 2.0 * (shape.linear + head) + attention
    if shape.whole:
        forward = 2.0 * shape.linear + attention
        train = 6.0 * (shape.linear + head) + 3 * attention
    else:
        forward = 2.0 * (shape.linear + shape.trainable) + attention
        train = 4.0 * (shape.linear + head) + 6.0 * shape.trainable + 3 * attention
    asked = 2.0 * shape.teacher
    if shape.needs_mismatched:
        asked += forward + 2.0 * head
    reference = base * (2 if shape.needs_mismatched else 1) if shape.needs_reference else 0.0
    again = forward if checkpointing else 0.0
    norms = 2.0 * shape.dora_work * (2 if checkpointing else 1)
    return ComputeWork(
        train_token=train + asked + (base if shape.asks_base else 0.0) + again,
        valid_token=forward + 2.0 * head + asked + (base if shape.validates_base else 0.0),
        micro_batch=norms,
        widened=(3.0 if checkpointing else 2.0) * num_coded(shape, codes),
        layers=shape.layers,
        shapes=SHAPES + SHAPES_PER_DOCUMENT * load.documents_per_pass,
        reference_token=reference,
    )


def num_coded(shape: Shape, codes: Codes | None) -> int:
    """Weights that are stored as codes."""
    return sum(out * into for out, into in coded(shape, codes)) if codes else 0


def rate(machine: Machine, dtype: str, measured_peak: float | None = None) -> float | None:
    """FLOP/s in training: achieved, else a share of the peak, the machine's or `measured_peak`."""
    known = machine.achieved.of(dtype)
    if known is not None:
        return known
    peak = measured_peak or machine.peak.of(dtype)
    return None if peak is None else peak * CPU_SHARE[dtype]


def bill(
    needed: ComputeWork,
    load: Workload,
    machine: Machine,
    *,
    flops: float,
    dtype: str = "bf16",
    tokens_per_second: float | None = None,
    done_steps: int = 0,
    max_minutes: float | None = None,
) -> Bill:
    """Hours, energy and money of the steps still to be taken, validation and reference included.

    `tokens_per_second`, where a probe measured it, replaces what `flops` a second would give for
    training steps; `done_steps` were taken before, by a run that is resumed. The first process
    computes the reference, and the others wait.
    """
    mean = max(1.0, load.mean_batch_tokens)
    computing = (mean * needed.train_token + needed.micro_batch) / flops
    per_token = _pass_seconds(computing, needed, machine.kind, dtype) / mean
    speed = load.processes / per_token if tokens_per_second is None else tokens_per_second
    step = load.tokens_per_step / speed
    # A probe's seconds stand for the probed work: validation is scaled from them.
    scale = (load.processes / per_token) / speed
    validation = load.valid_tokens * needed.valid_token / flops / load.processes * scale
    seconds = max(0, load.steps - done_steps) * step + load.validations * validation
    if max_minutes is not None:
        seconds = min(seconds, 60 * max_minutes)
    documents = 0 if done_steps else load.budget.tokens + load.valid_tokens
    reference = documents * needed.reference_token / flops * scale
    hours = (seconds + reference) / 3600
    return Bill(
        hours=hours,
        kwh=hours * machine.watts / 1000 * load.processes,
        cost=hours * machine.price * load.processes,
        seconds_per_step=step,
        tokens_per_second=speed,
        reference_hours=reference / 3600,
    )


def _pass_seconds(computing: float, needed: ComputeWork, kind: str, dtype: str) -> float:
    """One forward and backward pass: computing, and starting what is computed."""
    starting = needed.layers * LAYER_SECONDS[kind]
    computing += needed.widened * WIDEN_SECONDS[kind]
    if kind != "cpu":
        return max(computing, starting)
    compiling = KERNEL_SECONDS * needed.shapes if dtype != "fp32" else 0.0
    return computing + starting + compiling
