"""A base's weights counted from names and shapes, and what an adapter adds to them."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from graftlab.adapters.patterns import value_for
from graftlab.errors import ModelError
from graftlab.models.quantization.counting import coded_shapes, head_shape
from graftlab.models.stateful import stateful_layers

Shapes = Mapping[str, tuple[int, ...]]

LAYER = re.compile(r"(?:.*?\.)?(\d+)\.(.+)")
ATTENTION = re.compile(r"attn|attention")
LAST = re.compile(r"(^|\.)(o|out|output|down|c|dense_4h_to_h|dense|fc2|w2|wo)(_?proj|_?layer)?$")
"""Projections that end their block: they read what the block computed, not its normed input."""

NAMES = {
    "hidden": ("hidden_size", "n_embd", "d_model"),
    "layers": ("num_hidden_layers", "n_layer", "num_layers"),
    "vocab": ("vocab_size",),
}
"""What is needed of a `config.json`, and the keys it may stand under."""
HEADS = ("num_attention_heads", "n_head")


@dataclass(frozen=True, slots=True)
class Reads:
    """What adapted projections read, summed over all layers; widths in elements per token."""

    inputs: int = 0  # width of every adapted projection's input
    distinct: int = 0  # the same without repeats (q, k and v read one tensor), and without what
    # is kept for the backward pass anyway
    outputs: int = 0
    count: int = 0  # adapted projections


@dataclass(frozen=True, slots=True)
class Shape:
    """The numbers everything else follows from."""

    name: str
    source: str  # where they are from, for people
    parameters: int
    trainable: int
    layers: int
    hidden: int
    heads: int
    key_heads: int
    head_dim: int
    feed_forward: int
    """Width of what a token's MLP computes: of all its experts together, in a mixture."""
    vocab: int
    linear: int
    """Weights of the decoder layers' matrices that a token meets."""
    qk_norm: bool
    reads: Reads
    rank: int
    matrices: tuple[tuple[int, int], ...] = ()
    """(out, in) of all matrices of the decoder layers: what a quantization stores as codes."""
    head: tuple[int, int] | None = None
    """(out, in) of a head that is not the embedding."""
    dora_work: int = 0
    """Multiply-adds per micro-batch that DoRA's norms take, over all adapted projections."""
    whole: bool = False
    """Whether the base's own weights are trained, all of them."""
    teacher: int = 0
    """Weights of a frozen model that is asked beside it, forward only."""
    asks_base: bool = False
    """Whether the base itself is asked as well, in a pass without the adapter."""
    validates_base: bool = False
    """The same of validation."""
    needs_reference: bool = False
    """Whether the base is asked about all documents before the first step."""
    needs_mismatched: bool = False
    """Whether prompts with other rows' answers are passed over, too: before every step, in
    validation and by the reference."""

    @property
    def share(self) -> float:
        """Trainable parameters per parameter of the base."""
        return self.trainable / self.parameters


@dataclass(frozen=True, slots=True)
class Adapted:
    """What an adapter is put on: module names, ranks, DoRA, modules and tokens trained in full."""

    modules: Collection[str]
    rank: int
    dora: bool = False
    saved: Collection[str] = ()
    ranks: Mapping[str, int] = field(default_factory=dict)
    """Other ranks of some modules, as `lora.rank_pattern`."""
    tokens: int = 0
    """Rows of the embedding that are trained."""

    def rank_of(self, module: str) -> int:
        return value_for(self.ranks, module, self.rank)


def measure(
    tensors: Shapes, config: Mapping[str, Any], adapted: Adapted, *, name: str, source: str
) -> Shape:
    """Count a base (`tensors`: name -> shape) with an adapter on it.

    Raises ModelError when `config` (of the text model) lacks a number that is needed.
    """
    if "layers_block_type" in config:  # as long as the model is deep, where nothing says it
        config = {"num_hidden_layers": len(config["layers_block_type"]), **config}
    found = {key: _first(config, keys, name) for key, keys in NAMES.items()}
    hidden = found["hidden"]
    has_heads = not stateful_layers(config, tensors) or any(map(config.get, HEADS))
    heads = _first(config, HEADS, name) if has_heads else 0  # none in a Mamba
    head_dim = int(config.get("head_dim") or hidden // max(heads, 1))
    key_heads = int(config.get("num_key_value_heads") or heads)
    experts = int(config.get("num_experts_per_tok") or 0)
    inner = int(config.get("intermediate_size") or config.get("n_inner") or 4 * hidden)
    if experts:
        inner = experts * int(config.get("moe_intermediate_size") or inner)
    return Shape(
        name=name,
        source=source,
        parameters=sum(math.prod(shape) for shape in tensors.values()),
        trainable=trainable(tensors, adapted),
        layers=found["layers"],
        hidden=hidden,
        heads=heads,
        key_heads=key_heads,
        head_dim=head_dim,
        feed_forward=inner,
        vocab=found["vocab"],
        linear=_linear(tensors, config),
        qk_norm=any(re.search(r"\bq_norm\b", tensor) for tensor in tensors),
        matrices=tuple(coded_shapes(tensors).values()),
        head=head_shape(tensors),
        reads=_reads(tensors, adapted.modules),
        rank=adapted.rank,
        dora_work=_dora_work(tensors, adapted),
    )


def trainable(tensors: Shapes, adapted: Adapted) -> int:
    """Parameters that are trained: A and B of each module, DoRA's magnitudes, whole modules."""
    total = 0
    for module, (out, into) in _matrices(tensors, adapted.modules).items():
        total += adapted.rank_of(module) * (out + into) + (out if adapted.dora else 0)
    total += adapted.tokens * (_embedding(tensors)[1] if adapted.tokens else 0)
    for ending in adapted.saved:
        inside = re.compile(rf"(^|\.){re.escape(ending)}\.")
        whole = [shape for name, shape in tensors.items() if inside.search(name)]
        # A tied head has no tensor of its own: PEFT copies the embedding's.
        whole = whole or ([_embedding(tensors)] if ending == "lm_head" else [])
        total += sum(math.prod(shape) for shape in whole)
    return total


def _first(config: Mapping[str, Any], keys: tuple[str, ...], name: str) -> int:
    for key in keys:
        if config.get(key):
            return int(config[key])
    raise ModelError(
        f"{name}: its config.json has no {' or '.join(keys)}, without which nothing can be "
        "planned. Add it, or plan with model.architecture."
    )


def _matrices(tensors: Shapes, modules: Collection[str]) -> dict[str, tuple[int, int]]:
    """(out, in) of each named module; a tied head has the embedding's shape."""
    found: dict[str, tuple[int, int]] = {}
    for module in modules:
        shape = tensors.get(f"{module}.weight") or _embedding(tensors)
        found[module] = (shape[0], shape[1])
    return found


def _embedding(tensors: Shapes) -> tuple[int, ...]:
    shapes = [s for n, s in tensors.items() if re.search(r"embed_tokens|wte|embed_in", n)]
    return shapes[0] if shapes else (0, 0)


def _linear(tensors: Shapes, config: Mapping[str, Any]) -> int:
    """Weights of matrices inside layers; of a mixture's experts only those a token goes to."""
    all_experts = int(config.get("num_experts") or config.get("num_local_experts") or 0)
    used = int(config.get("num_experts_per_tok") or 0)
    share = used / all_experts if all_experts and used else 1.0
    total = 0.0
    for name, shape in tensors.items():
        if LAYER.fullmatch(name) and len(shape) >= 2:
            total += math.prod(shape) * (share if ".experts" in name else 1.0)
    return round(total)


def _reads(tensors: Shapes, modules: Collection[str]) -> Reads:
    matrices = _matrices(tensors, modules)
    distinct: dict[tuple[str, int], int] = {}
    for module, (_, into) in matrices.items():
        container = module.rpartition(".")[0]
        last = bool(LAST.search(module))
        if last and ATTENTION.search(container):
            continue  # reads attention's output, which its own backward pass keeps
        distinct[(container, last)] = into
    return Reads(
        inputs=sum(into for _, into in matrices.values()),
        distinct=sum(distinct.values()),
        outputs=sum(out for out, _ in matrices.values()),
        count=len(matrices),
    )


def _dora_work(tensors: Shapes, adapted: Adapted) -> int:
    """PEFT multiplies B and A out by sending an identity matrix through both."""
    if not adapted.dora:
        return 0
    matrices = _matrices(tensors, adapted.modules).items()
    return sum(adapted.rank_of(name) * into * (into + out) for name, (out, into) in matrices)
