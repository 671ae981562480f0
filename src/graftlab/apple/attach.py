"""LoRA of tamm on Apple's on-device model: made, initialised, and loaded from what was saved.

adapter_model.safetensors    layers.segment_0.layer_0.attention.qkv_transform.adapters.base_adapter.
                             lora_0.a_transpose (in, rank), .b_transpose (rank, out), ...
adapter_config.json          rank, alpha, dropout, targets and layers
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from graftlab.apple.targets import Make, kind_of, layer_of, resolve_targets
from graftlab.errors import ConfigError, ModelError

if TYPE_CHECKING:
    import torch
    from torch import nn

    from graftlab.adapters.lora import Lora
    from graftlab.adapters.store import AdapterSource
    from graftlab.apple.adapter import TammAdapter
    from graftlab.apple.base import AFMBase
    from graftlab.apple.model import AFMModel


def check(model: AFMModel, lora: Lora) -> None:
    """Raise ConfigError unless Apple's model of this size can carry such an adapter."""
    resolve_targets(lora, num_layers=model.published.layers or 0)


def attach(base: AFMBase, lora: Lora, *, seed: int, dtype: torch.dtype) -> TammAdapter:
    """A new adapter on `base`; see `adapters.attach`. Raises ConfigError."""
    from graftlab.adapters.artifact import find_start
    from graftlab.apple.adapter import initialise

    make = resolve_targets(lora, num_layers=len(base.layers))
    source = find_start(lora, base)
    if source is not None:
        _require_same_make(lora, make, source)
    adapter = _inject(base, make, dtype=dtype)
    initialise(adapter, lora.init, seed=seed if lora.seed is None else lora.seed)
    if source is not None:
        adapter.fill(source)
    return adapter


def load_adapter(
    base: AFMBase, source: AdapterSource, *, dtype: torch.dtype | None = None
) -> TammAdapter:
    """A trained adapter on `base`, its weights in `dtype` (default fp32). Raises ModelError."""
    import torch

    adapter = _inject(base, _make_of(source), dtype=dtype or torch.float32)
    adapter.fill(source)
    return adapter


def _make_of(source: AdapterSource) -> Make:
    """How the adapter in `source` was made. Raises ModelError for another library's."""
    content = source.config()
    if content.get("format") != "tamm":
        kind = content.get("peft_type", content.get("format", "an unknown kind"))
        raise ModelError(
            f"{source.path} is an adapter of {kind}: Apple's on-device model takes those of tamm, "
            "which graftlab and Apple's toolkit write."
        )
    return Make(
        rank=int(content["rank"]),
        alpha=float(content["alpha"]),
        targets=tuple(content["targets"]),
        layers=content.get("layers"),
        dropout=float(content.get("dropout", 0.0)),
    )


def _inject(base: AFMBase, make: Make, *, dtype: torch.dtype) -> TammAdapter:
    from graftlab.apple.adapter import TammAdapter

    assert base.adapter is None, "this base already carries an adapter; detach it first"
    return TammAdapter(base, make, _create(base, make), dtype=dtype)


def _create(base: AFMBase, make: Make) -> dict[str, nn.Module]:
    """tamm's LoRA modules by the name of the layer that each is put into; no memory yet."""
    import torch
    from tamm.adapters import LoRAModelAdapter

    wanted = set(make.targets)
    with torch.random.fork_rng(devices=[]):
        spec = LoRAModelAdapter(
            rank=make.rank,
            alpha=make.alpha,
            adapt_attention_queries="q_proj" in wanted,
            adapt_attention_keys="k_proj" in wanted,
            adapt_attention_values="v_proj" in wanted,
            adapt_attention_outputs="o_proj" in wanted,
            adapt_feed_forward_hidden_states=bool(wanted & {"gate_proj", "up_proj"}),
            adapt_feed_forward_outputs="down_proj" in wanted,
            device=torch.device("meta"),
        ).create_adapters(base.model)
    first = 0 if make.layers is None else len(base.layers) - make.layers
    regular = base.num_regular_layers
    return {
        name: module
        for name, module in spec.layer_adapters.items()
        if layer_of(name, regular=regular) >= first
        and ("qkv_transform" in name or kind_of(name) in wanted)
    }


def _require_same_make(lora: Lora, make: Make, source: AdapterSource) -> None:
    """Raise ConfigError naming every key in which the adapter to continue differs."""
    theirs = _make_of(source)
    asked = {
        "lora.rank": (make.rank, theirs.rank),
        "lora.alpha": (make.alpha, theirs.alpha),
        "lora.targets": (sorted(make.targets), sorted(theirs.targets)),
        "lora.layers": (make.layers, theirs.layers),
    }
    wrong = [
        f"{key}: asked {ours}, it has {its}" for key, (ours, its) in asked.items() if ours != its
    ]
    if wrong:
        raise ConfigError(
            f"lora.from={lora.from_run} is of another make and cannot be continued exactly. "
            "Set the same values: " + "; ".join(wrong) + "."
        )
