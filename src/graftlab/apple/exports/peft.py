"""An adapter of Apple's model in PEFT's format, under names that PEFT can target.

    layers.segment_0.layer_3.attention.qkv_transform...lora_1.a_transpose   (in, rank)
    -> base_model.model.model.layers.segment_0.layer_3.attention.qkv_transform.k_proj.lora_A.weight

It is loaded onto `graftlab.apple.exports.plain.PlainAFM`, whose modules have these names.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from graftlab.apple.exports.layout import adapts_all, place_of
from graftlab.apple.exports.source import TrainedAFM
from graftlab.apple.targets import ATTENTION
from graftlab.exports.peft import CONFIG, WEIGHTS, InPeft, in_peft

if TYPE_CHECKING:
    from torch import Tensor

PREFIX = "base_model.model.model."
"""PEFT's own prefix, and the attribute under which `PlainAFM` keeps tamm's model."""
OF_TAMM = frozenset({CONFIG, WEIGHTS, "run.yaml", "card.md"})
"""What in an adapter's folder speaks of tamm's format, and is not copied beside PEFT's."""
HOW = "load it onto graftlab.apple.exports.plain.PlainAFM around tamm's model (docs/export.md)"


@in_peft.register
def _(adapter: TrainedAFM) -> InPeft:
    state = {name: tensor.T.contiguous() for name, tensor in _renamed(adapter)}
    alpha = adapter.scale * adapter.rank
    config: dict[str, Any] = {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": str(adapter.base) if adapter.base else None,
        "inference_mode": True,
        "r": adapter.rank,
        "lora_alpha": int(alpha) if alpha.is_integer() else alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": _targets(adapter, state),
    }
    return InPeft(state, config, left_out=OF_TAMM, notes=(HOW,))


def _renamed(adapter: TrainedAFM) -> Iterator[tuple[str, Tensor]]:
    for name, tensor in adapter.state.items():
        place = place_of(name)
        module = f"layers.segment_{place.segment}.layer_{place.layer}.{place.module}"
        if place.part is not None:
            module += f".{ATTENTION[place.part]}"
        yield f"{PREFIX}{module}.lora_{place.matrix.upper()}.weight", tensor


def _targets(adapter: TrainedAFM, state: dict[str, Tensor]) -> list[str]:
    """Ends of module names that tell PEFT what to adapt, and match nothing else of the model."""
    modules = {name.removeprefix(PREFIX).rsplit(".lora_", 1)[0] for name in state}
    if not adapts_all(adapter.state):
        return sorted(modules)
    # layers.segment_0.layer_3 | attention.output_transform: its last part alone is also the head's.
    return sorted({module.split(".", 3)[3] for module in modules})
