"""The parts of a plain decoder of transformers, found for decoding with whatever adapter is on.

x = x + o(attention(rotated q k, v))      q k v, gate and up each share one input
x = x + down(act(gate) * up)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from graftlab.limits import free_memory_bytes
from graftlab.models.lean_products import Apart, Folded, Norm, Place, Product
from graftlab.models.quantization.weight import QuantizedWeight

FAMILIES = {"LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM"}
"""Classes of transformers that are computed so: pre-normalised layers of attention and a gated MLP,
rotary embeddings, and nothing else."""
ROTARY = {"default", "linear", "llama3", "yarn"}
"""Kinds of rotary embeddings that depend on nothing but the position."""


@dataclass(frozen=True, slots=True)
class LeanLayer:
    """One decoder layer."""

    before_attention: Norm
    qkv: Product
    of_heads: tuple[Norm, Norm] | None
    """Of queries and of keys, where the family has such norms."""
    scale: float
    output: Product
    before_mlp: Norm
    gate_up: Product
    activation: Callable[[Tensor], Tensor]
    down: Product


@dataclass(frozen=True, slots=True)
class LeanWeights:
    """A whole decoder."""

    embedding: Tensor
    layers: list[LeanLayer]
    norm: Norm
    head: Product
    rotary: nn.Module
    num_heads: int
    num_key_heads: int
    head_dim: int
    dtype: torch.dtype
    """Of the products."""
    is_copy: bool
    """Whether all is in plain tensors of its own."""


class LeanStore:
    """Lean weights of a model, those of each adapter that was on, as long as there is room."""

    def __init__(self) -> None:
        self._kept: dict[tuple[Any, ...], tuple[LeanWeights, list[Tensor]]] = {}
        """With what they were made of: no other tensor may come to lie where one of those lay."""

    def of(self, model: Any) -> LeanWeights | None:
        """Those of a model of transformers with whatever adapter is on at the moment.

        Weights in fp32 are copied and adapters folded in, where that takes at most half of the
        memory that is free. None where decoding is left to transformers: other families, layers
        that slide, other devices, adapters that are not LoRA's matrices.
        """
        places = [_place(module) for module in _modules(model)] if _is_served(model) else [None]
        found = [place for place in places if place is not None]
        if len(found) < len(places):
            return None
        lowered = torch.is_autocast_enabled("cpu")
        dtype = torch.get_autocast_dtype("cpu") if lowered else found[0].weight.dtype
        sources = [tensor for place in found for tensor in place.tensors()]
        scales = tuple(place.lora.scaling[name] for place in found for name in place.active)
        lain = tuple((tensor.data_ptr(), tensor._version) for tensor in sources)
        state = (dtype, *scales, *lain)
        if state in self._kept:
            return self._kept[state][0]
        folds = not lowered and all(place.is_foldable for place in found)
        folds = folds and self._has_room(found)
        if not folds and any(place.has_variants for place in found):
            return None
        with torch.no_grad():
            made = _build(model, found, dtype, folds=folds)
        self._kept[state] = made, [tensor.detach() for tensor in sources]
        return made

    def _has_room(self, places: list[Place]) -> bool:
        """Whether there is room for a copy, if need be in the place of others."""
        needed = 2 * sum(place.weight.numel() * place.weight.itemsize for place in places)
        if needed > free_memory_bytes():
            self._kept.clear()
        return needed <= free_memory_bytes()


def _is_served(model: Any) -> bool:
    config = model.config
    rope = getattr(config, "rope_parameters", None) or {}
    return (
        type(model).__name__ in FAMILIES
        and type(model).__module__.startswith("transformers.")
        and set(getattr(config, "layer_types", None) or ()) <= {"full_attention"}
        and (getattr(config, "layer_types", None) or not getattr(config, "sliding_window", None))
        and rope.get("rope_type", "default") in ROTARY
        and model.device.type == "cpu"
    )


def _modules(model: Any) -> Iterator[Any]:
    """Every module with a matrix, in the order in which `_build` takes them."""
    for layer in model.model.layers:
        attention, mlp = layer.self_attn, layer.mlp
        yield from (attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj)
        yield from (mlp.gate_proj, mlp.up_proj, mlp.down_proj)
    yield from (model.model.embed_tokens, model.lm_head)


def _place(module: Any) -> Place | None:
    """What `module` multiplies with; None where that is something else than a matrix."""
    lora: Any = None
    active: tuple[str, ...] = ()
    if type(module) not in (nn.Linear, nn.Embedding):
        module, lora, active = _unwrapped(module)
    if type(module) not in (nn.Linear, nn.Embedding):
        return None
    if type(module.weight.data) not in (Tensor, QuantizedWeight):
        return None
    return Place(module.weight, getattr(module, "bias", None), lora, active)


def _unwrapped(module: Any) -> tuple[Any, Any, tuple[str, ...]]:
    """(module of the base or trained in its place, LoRA layer, its adapters) of PEFT's wrappers."""
    from peft.tuners.lora import Linear
    from peft.utils.other import ModulesToSaveWrapper

    if isinstance(module, ModulesToSaveWrapper):
        names = [name for name in module.active_adapters if name in module.modules_to_save]
        trained = names and not module.disable_adapters
        return (module.modules_to_save[names[0]] if trained else module.original_module), None, ()
    if not isinstance(module, Linear):
        return None, None, ()
    names = [name for name in module.active_adapters if name in module.lora_A]
    if module.disable_adapters or module.merged or not names:
        return module.base_layer, None, ()
    plain = not any(module.lora_bias[name] or module.fan_in_fan_out for name in names)
    return (module.base_layer if plain else None), module, tuple(names)


def _build(model: Any, places: list[Place], dtype: torch.dtype, *, folds: bool) -> LeanWeights:
    *inner, embedding, head = places
    left = iter(inner)

    def product(taken: list[Place]) -> Product:
        return Folded(taken) if folds else Apart(taken, dtype)

    def following(count: int) -> Product:
        return product([next(left) for _ in range(count)])

    layers = []
    for layer in model.model.layers:
        attention = layer.self_attn
        norms = None
        if hasattr(attention, "q_norm"):
            norms = (Norm(attention.q_norm), Norm(attention.k_norm))
        layers.append(
            LeanLayer(
                before_attention=Norm(layer.input_layernorm),
                qkv=following(3),
                of_heads=norms,
                scale=attention.scaling,
                output=following(1),
                before_mlp=Norm(layer.post_attention_layernorm),
                gate_up=following(2),
                activation=layer.mlp.act_fn,
                down=following(1),
            )
        )
    config = model.config
    return LeanWeights(
        embedding=embedding.weight.detach(),
        layers=layers,
        norm=Norm(model.model.norm),
        head=product([head]),
        rotary=model.model.rotary_emb,
        num_heads=config.num_attention_heads,
        num_key_heads=config.num_key_value_heads,
        head_dim=model.model.layers[0].self_attn.head_dim,
        dtype=dtype,
        is_copy=folds,
    )
