"""Peak memory of training, by term, for the step this house takes.

    base        frozen weights in their stored dtype, or as codes with their scales
    adapter     trained weights             gradients   as many, kept between micro-batches
    optimizer   Adam's two moments in fp32 (and bf16's lower halves)
    activations what the forward pass keeps for the backward pass of the largest micro-batch
    logits      one chunk at labelled positions, with its softmax and gradient
    working     temporaries of one layer's backward pass, beyond those of the logits; of a base
                of codes one widened weight besides
    overhead    what a process has before its first step, and what its allocator loses
    teacher     frozen weights of the model that a student learns from, where there is one

A base whose own weights are trained is there twice: as it was lent, and as it is trained.

Activations are counted tensor by tensor, from what PyTorch keeps for a Llama-like layer with LoRA
on it (a frozen linear keeps nothing; a norm its input; attention q, k, v, output and a log-sum-exp;
the MLP gate and up; LoRA h, as its input is made again: see `models/recompute.py`). Per token and
layer, eager:

    bf16-mixed   4 D + 4 (q + k) + 4 heads + 4 I + 2 r (each)
    fp32         8 D + 8 (q + k) + 4 heads + 8 I + 4 r (each)

D hidden size, I width of the MLP, q and k widths of all query and of all key heads. DoRA's layers,
and all that are compiled, keep the inputs of lora_A: of DoRA under autocast or with dropout each
one of its own, else they share it. Layers of other
kinds keep 8 D and 6 or 12 I, and those inputs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields

from graftlab.machine import GIB
from graftlab.models.quantization.base import Codes, Quantization
from graftlab.planning.shape import Shape
from graftlab.planning.workload import Workload
from graftlab.process import KEPT_KERNELS

CHUNK_ELEMENTS = 1 << 24
"""Logits of one chunk, as `objectives/policy.py` makes them."""

MIB = 2**20
START = {"cpu": 575 * MIB, "cuda": 0.6 * GIB, "mps": 0.6 * GIB}
"""Before anything is kept: Python, PyTorch and Lightning on a CPU (measured); context and libraries
of a GPU (estimate)."""
COMPILER = 150 * MIB
"""What a process that has compiled its layers holds besides."""
KERNEL = 0.58 * MIB
"""A compiled kernel of a 16-bit product (896 of them: 520 MiB). oneDNN makes one for every shape,
and as every micro-batch and every document has another length, all that it keeps (`process.py`) are
there after a few steps."""
LOSS = {"cpu": 0.21, "cuda": 0.05, "mps": 0.1}
"""Allocated but unused after a step, as a share of what is in use. Fitted on a CPU."""
FRAYS, GROWN = 3_590.0, 300
"""On a CPU the heap, which is never handed back (`models/allocator.py`), frays: micro-batches have
other lengths every time, and a hole left by one tensor is a little too small for the next. After n
of them it has lost FRAYS x sqrt(n - 1) bytes for every token and root of the hidden size: between
tensors as wide as that and those that do not know it. Seen up to GROWN, and taken to stop there;
fitted with hidden sizes of 256 to 896 (`benchmarks/plan_fit.py`)."""

STORED = {"fp32": 4.0, "bf16-mixed": 2.0, "bf16": 2.0, "fp16-mixed": 2.0}
TRAINED = {"fp32": 4.0, "bf16-mixed": 4.0, "bf16": 2.0, "fp16-mixed": 4.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What of a run's configuration its memory depends on."""

    precision: str
    """fp32, bf16-mixed, bf16 or fp16-mixed: resolved, not auto."""
    checkpointing: bool = False
    compiled: bool = False
    dropout: bool = False
    dora: bool = False
    optimizer_bytes: float = 8.0
    """State per trained parameter."""
    sharded: int = 1
    """Processes that share the base between them."""
    kind: str = "cpu"
    upcast: bool = False
    """16-bit products are computed in fp32: a processor without units for them."""
    quantization: Quantization = field(default_factory=Quantization)
    """How the base is stored."""
    quantises: bool = True
    """Whether it could be stored otherwise."""
    keeps_little: bool = True
    """Whether its layers are of a kind that `models/recompute.py` knows."""

    @property
    def wide(self) -> int:
        """Bytes of a computed activation."""
        return 4 if self.precision == "fp32" else 2

    @property
    def casts(self) -> bool:
        """Whether adapters put their inputs into another dtype, as PEFT's DoRA does."""
        return self.precision.endswith("-mixed") and self.dora


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes by term; `total` is their sum."""

    base: float
    adapter: float
    gradients: float
    optimizer: float
    activations: float
    logits: float
    working: float
    overhead: float
    teacher: float = 0.0

    @property
    def total(self) -> float:
        return sum(self.terms().values())

    def terms(self) -> dict[str, float]:
        """Term -> bytes, in the order they are explained in; without a teacher, none is named."""
        found = {term.name: getattr(self, term.name) for term in fields(self)}
        if not self.teacher:
            del found["teacher"]
        return found


def estimate_memory(shape: Shape, load: Workload, settings: Settings) -> Memory:
    """The memory of one process at its largest micro-batch."""
    trained = TRAINED[settings.precision]
    logits = logit_bytes(load.batch_labels, shape.vocab, settings)
    layer = working_bytes(shape, load.batch_tokens, settings)
    parts = {
        "base": base_bytes(shape, settings) / settings.sharded,
        "adapter": shape.trainable * trained,
        "gradients": shape.trainable * trained,
        "optimizer": shape.trainable * settings.optimizer_bytes,
        "activations": load.batch_tokens * kept_per_token(shape, settings),
        "logits": logits,
        "working": max(0.0, layer - logits) + widened_bytes(shape, settings),
        "teacher": shape.teacher * STORED[settings.precision],
    }
    moving = sum(parts[name] for name in ("activations", "logits", "working"))
    return Memory(**parts, overhead=overhead_bytes(moving, shape, load, settings))


def base_bytes(shape: Shape, settings: Settings) -> float:
    """Every weight of the base, as it is stored."""
    each = (TRAINED if shape.whole else STORED)[settings.precision]
    codes = settings.quantization
    if not isinstance(codes, Codes):
        return shape.parameters * each
    matrices = coded(shape, codes)
    rest = shape.parameters - sum(out * into for out, into in matrices)
    return rest * each + sum(codes.num_bytes(out, into) for out, into in matrices)


def widened_bytes(shape: Shape, settings: Settings) -> float:
    """The largest weight of codes as it is multiplied with."""
    codes = settings.quantization
    if not isinstance(codes, Codes):
        return 0.0
    return STORED[settings.precision] * max((o * i for o, i in coded(shape, codes)), default=0)


def coded(shape: Shape, codes: Codes) -> list[tuple[int, int]]:
    """(out, in) of every weight that is stored as codes."""
    head = [shape.head] if codes.head and shape.head is not None else []
    return [*shape.matrices, *head]


def overhead_bytes(moving: float, shape: Shape, load: Workload, settings: Settings) -> float:
    """What a process holds beyond its tensors, `moving` bytes of which come and go every step."""
    total = START[settings.kind] + LOSS[settings.kind] * moving
    total += COMPILER if settings.compiled else 0.0
    if settings.kind != "cpu":
        return total
    total += KERNEL * KEPT_KERNELS if settings.precision != "fp32" and not settings.upcast else 0.0
    return total + FRAYS * frayed(shape, load)


def frayed(shape: Shape, load: Workload) -> float:
    """What `FRAYS` multiplies."""
    batches = math.sqrt(min(load.passes, GROWN) - 1)
    return load.mean_batch_tokens * math.sqrt(shape.hidden) * batches


def kept_per_token(shape: Shape, settings: Settings) -> float:
    """Bytes a token keeps from the forward to the backward pass, over all layers."""
    whole = _layers_per_token(shape, settings)
    if not settings.checkpointing:
        return whole
    # Each layer keeps its input; one layer at a time keeps everything.
    return settings.wide * shape.hidden * shape.layers + whole / shape.layers


def _layers_per_token(shape: Shape, settings: Settings) -> float:
    wide, reads, layers = settings.wide, shape.reads, shape.layers
    query, key = shape.heads * shape.head_dim, shape.key_heads * shape.head_dim
    attention = 2 * wide * (query + key) + 4 * shape.heads
    lora = wide * shape.rank * reads.count
    if settings.compiled or settings.keeps_little:
        # Norms and SiLU are computed again in the backward pass, from their inputs.
        layer = 2 * wide * shape.hidden + attention + 2 * wide * shape.feed_forward
        normed = wide * (query + key)
    else:
        layer = 8 * shape.hidden + attention + 3 * wide * shape.feed_forward
        normed = 4 * (query + key)
    if settings.compiled:
        return layers * layer + lora + wide * reads.distinct
    layer += normed if shape.qk_norm else 0
    if settings.dora:
        lora += 2 * wide * reads.outputs  # the base's and the adapter's result, for the magnitude
    elif settings.keeps_little:
        # The first norm has no gradient, and what it gives is kept.
        return layers * layer + lora + wide * shape.hidden
    apart = settings.casts or settings.dropout
    return layers * layer + lora + wide * (reads.inputs if apart else reads.distinct)


def logit_bytes(labels: int, vocab: int, settings: Settings) -> float:
    """One chunk of logits with softmax, its gradient, and the gradient in the compute dtype."""
    elements = min(labels * vocab, max(CHUNK_ELEMENTS, vocab))
    return elements * (12.0 + settings.wide)


def working_bytes(shape: Shape, tokens: int, settings: Settings) -> float:
    """Temporaries of an MLP's backward pass: gradients of its product, gate and up, and copies."""
    factor = 14 if settings.casts else 12 if settings.upcast else 4 * settings.wide
    return float(tokens) * (factor * shape.feed_forward + 4 * settings.wide * shape.hidden)
