"""Which linear layers of Apple's on-device model an adapter goes on, under their usual names.

attention.qkv_transform  lora_0 lora_1 lora_2    q_proj k_proj v_proj
attention.q_transform                            q_proj    (a layer that reuses keys and values)
attention.output_transform                       o_proj
feed_forward.hidden_transform linear_0 linear_1  gate_proj up_proj
feed_forward.output_transform                    down_proj
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from graftlab.errors import ConfigError, ModelError, did_you_mean

if TYPE_CHECKING:
    from torch import Tensor

    from graftlab.adapters.lora import Lora

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
FEED_FORWARD = ("gate_proj", "up_proj", "down_proj")
ALL = (*ATTENTION, *FEED_FORWARD)
PRESETS = {"attn": ATTENTION, "attn-mlp": ALL, "all-linear": ALL, "auto": ALL}

ADAPTER = "base_adapter"
"""What tamm and the toolkit call the one adapter there is; part of every tensor's name."""

PROVEN_RANK = 32
"""The toolkit's own rank; with every linear layer adapted, the only one known to run on devices."""

SCALE = 0.5
"""alpha / rank of the toolkit's adapters, whose checkpoints do not say it."""

_NAMES = {
    "attention.qkv_transform.lora_0": "q_proj",
    "attention.qkv_transform.lora_1": "k_proj",
    "attention.qkv_transform.lora_2": "v_proj",
    "attention.q_transform": "q_proj",
    "attention.output_transform": "o_proj",
    "feed_forward.hidden_transform.linear_0": "gate_proj",
    "feed_forward.hidden_transform.linear_1": "up_proj",
    "feed_forward.output_transform": "down_proj",
}


@dataclass(frozen=True, slots=True)
class Make:
    """How an adapter of tamm is made; what its `adapter_config.json` says."""

    rank: int
    alpha: float
    targets: tuple[str, ...]
    layers: int | None
    """Only the last N decoder layers; None for all."""
    dropout: float = 0.0

    @property
    def notes(self) -> list[str]:
        """What keeps it from being one that is proven to run on a device."""
        reasons = []
        if self.rank != PROVEN_RANK:
            reasons.append(f"rank {self.rank}")
        if set(self.targets) != set(ALL) or self.layers is not None:
            reasons.append("some linear layers left out")
        if not reasons:
            return []
        return [
            f"{' and '.join(reasons)}: fine for research, but only rank {PROVEN_RANK} on all "
            "linear layers (lora=afm-r32) is known to run on a device once exported."
        ]


def resolve_targets(lora: Lora, *, num_layers: int) -> Make:
    """What `lora` means on a model of `num_layers`. Raises ConfigError, all problems at once."""
    problems = [
        f"lora.{key}: {why}"
        for key, asked, why in (
            ("dora", lora.dora, "tamm has no DoRA"),
            ("init", lora.init == "eva", "eva is drawn for PEFT's layers alone"),
            ("rank_pattern", lora.rank_pattern, "its runtime takes one rank"),
            ("alpha_pattern", lora.alpha_pattern, "its runtime takes one scale"),
            ("modules_to_save", lora.modules_to_save, "its runtime takes LoRA alone"),
            ("trainable_tokens", lora.trainable_tokens, "its runtime takes LoRA alone"),
        )
        if asked
    ]
    chosen = PRESETS[lora.targets] if isinstance(lora.targets, str) else tuple(lora.targets)
    problems += [
        f"lora.targets: {name} is no linear layer of this model.{did_you_mean(name, ALL)} "
        f"There are: {', '.join(ALL)}"
        for name in chosen
        if name not in ALL
    ]
    if lora.layers is not None and lora.layers > num_layers:
        problems.append(
            f"lora.layers={lora.layers}: this model has {num_layers} layers; null adapts all"
        )
    if problems:
        raise ConfigError(
            f"Apple's on-device model cannot carry this adapter. {'; '.join(problems)}."
        )
    targets = tuple(name for name in ALL if name in chosen)
    return Make(lora.rank, alpha_of(lora), targets, lora.layers, lora.dropout)


def alpha_of(lora: Lora) -> float:
    """The alpha that tamm divides by the rank."""
    return lora.effective_alpha * (lora.rank**0.5 if lora.rslora else 1)


def kind_of(name: str) -> str:
    """The usual name of a linear layer by the ending of its name in tamm."""
    return next(kind for ending, kind in _NAMES.items() if name.endswith(ending))


def layer_of(name: str, *, regular: int) -> int:
    """The number of the decoder layer that `layers.segment_S.layer_N...` or `layers.layer_N...` is.

    `regular` counts the layers of the first segment.
    """
    parts = name.split(".")
    number = next(int(p.removeprefix("layer_")) for p in parts if p.startswith("layer_"))
    return number + (regular if "segment_1" in parts else 0)


def plain_config(make: Make) -> dict[str, Any]:
    """`adapter_config.json`, but for what is known only once the adapter is on its base."""
    return {
        "format": "tamm",
        "rank": make.rank,
        "alpha": int(make.alpha) if float(make.alpha).is_integer() else make.alpha,
        "dropout": make.dropout,
        "targets": list(make.targets),
        "layers": make.layers,
    }


def describe(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """What `adapter_config.json` would hold, from the names and shapes of a toolkit checkpoint.

    Alpha is not in such a file: the toolkit's own is assumed. Raises ModelError.
    """
    downs = {name: t for name, t in state.items() if name.endswith(".a_transpose")}
    ranks = {int(tensor.shape[-1]) for tensor in downs.values()}
    if len(ranks) != 1:
        raise ModelError(
            f"it has no one rank but {sorted(ranks)}: is it an adapter of the toolkit?"
        )
    rank = ranks.pop()
    modules = [name.removesuffix(".a_transpose") for name in downs]
    try:
        kinds = {kind_of(_without_adapter(name)) for name in modules}
    except StopIteration:
        raise ModelError("its tensors are not named as the toolkit's are.") from None
    targets = tuple(name for name in ALL if name in kinds)
    return plain_config(Make(rank, SCALE * rank, targets, None))


def _without_adapter(name: str) -> str:
    """`...qkv_transform.adapters.base_adapter.lora_0` as `...qkv_transform.lora_0`."""
    head, _, tail = name.partition(".adapters.")
    leaf = tail.partition(".")[2]
    return f"{head}.{leaf}" if leaf else head
