"""The weights of a Llama as its decoding multiplies with them: folded, fused, and transposed.

    q k v      ->  (D, q + k + v)         an adapter is added to a copy, as PEFT merges it:
    gate up    ->  (D, 2 I)               W + s B A; the model's own weights are never written to
    head       ->  (D, 4096) ...

One row times a matrix takes half the time where the matrix lies as (in, out), and a few rows take a
third less where none is wider than 4,096 columns.

Legend: D hidden size, I width of the MLP, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from graftlab.limits import free_memory_bytes

FAMILIES = {"LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM"}
"""Classes of transformers that are computed so: pre-normalised layers of attention and a gated MLP,
rotary embeddings, and nothing else."""
ROTARY = {"default", "linear", "llama3", "yarn"}
"""Kinds of rotary embeddings that depend on nothing but the position."""
WIDEST = 4096
"""Columns of a panel, at most."""


class Product:
    """x W + b with W (in, out) in panels."""

    def __init__(self, weights: list[Tensor], biases: list[Tensor | None]) -> None:
        """`weights` are (out, in) each, and their outputs stand side by side."""
        whole = weights[0] if len(weights) == 1 else torch.cat(weights)
        parts = whole.tensor_split(-(-len(whole) // WIDEST))
        self.panels = [part.t().contiguous() for part in parts]
        found = [
            weight.new_zeros(len(weight)) if bias is None else bias
            for weight, bias in zip(weights, biases, strict=True)
        ]
        self.bias = torch.cat(found) if any(bias is not None for bias in biases) else None

    def __call__(self, rows: Tensor) -> Tensor:
        """(N, in) -> (N, out)."""
        outs = [rows @ panel for panel in self.panels]
        out = outs[0] if len(outs) == 1 else torch.cat(outs, dim=1)
        return out if self.bias is None else out.add_(self.bias)

    def onto(self, residual: Tensor, rows: Tensor) -> Tensor:
        """`residual` (N, out) and the product."""
        if len(self.panels) == 1 and self.bias is None:
            return torch.addmm(residual, rows, self.panels[0])
        return self(rows).add_(residual)


class Norm:
    """A root mean square norm with its weight."""

    def __init__(self, module: Any) -> None:
        self.weight: Tensor = module.weight.detach()
        self.epsilon: float = module.variance_epsilon

    def __call__(self, rows: Tensor) -> Tensor:
        return functional.rms_norm(rows, self.weight.shape, self.weight, self.epsilon)


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


class LeanCopies:
    """Lean weights of a model, a copy for each adapter that was on, as long as there is room."""

    def __init__(self) -> None:
        self._kept: dict[tuple[Any, ...], tuple[LeanWeights, list[Tensor]]] = {}
        """With what they were made of: no other tensor may come to lie where one of those lay."""

    def of(self, model: Any) -> LeanWeights | None:
        """Those of a model of transformers with whatever adapter is on at the moment.

        None where its decoding is left to transformers: other families, layers that slide, other
        devices and dtypes, weights stored as codes, adapters that are not LoRA's matrices, and
        where a copy would take more than half of the memory that is free.
        """
        places = [_place(module) for module in _modules(model)] if _is_served(model) else [None]
        found = [place for place in places if place is not None]
        if len(found) < len(places):
            return None
        sources = [tensor for place in found for tensor in place.tensors()]
        scales = tuple(place.lora.scaling[name] for place in found for name in place.active)
        state = (*scales, *((tensor.data_ptr(), tensor._version) for tensor in sources))
        if state not in self._kept:
            needed = 2 * sum(place.weight.numel() * place.weight.itemsize for place in found)
            if needed > free_memory_bytes():
                self._kept.clear()
            if needed > free_memory_bytes():
                return None
            with torch.inference_mode():
                copies = _build(model, found)
            self._kept[state] = copies, [tensor.detach() for tensor in sources]
        return self._kept[state][0]


@dataclass(frozen=True, slots=True)
class _Place:
    """A linear layer or embedding, with the LoRA layer around it if there is one."""

    weight: Tensor
    bias: Tensor | None
    lora: Any
    active: tuple[str, ...]

    def tensors(self) -> Iterator[Tensor]:
        """All that its product depends on."""
        yield self.weight
        if self.bias is not None:
            yield self.bias
        for name in self.active:
            yield self.lora.lora_A[name].weight
            yield self.lora.lora_B[name].weight
            if name in self.lora.lora_magnitude_vector:
                yield self.lora.lora_magnitude_vector[name].weight

    def folded(self) -> Tensor:
        """The weight (out, in) with the adapter, as PEFT merges it but in one pass over it."""
        weight, lora = self.weight.detach(), self.lora
        for name in self.active:
            if name in lora.lora_variant:
                weight = lora.lora_variant[name].merge_safe(lora, name, weight.clone())
                continue
            down, up = (half[name].weight.to(weight.dtype) for half in (lora.lora_A, lora.lora_B))
            weight = torch.addmm(weight, up, down, alpha=lora.scaling[name])
        return weight


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
        and not torch.is_autocast_enabled("cpu")
    )


def _modules(model: Any) -> Iterator[Any]:
    """Every module with a matrix, in the order in which `_build` takes them."""
    for layer in model.model.layers:
        attention, mlp = layer.self_attn, layer.mlp
        yield from (attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj)
        yield from (mlp.gate_proj, mlp.up_proj, mlp.down_proj)
    yield from (model.model.embed_tokens, model.lm_head)


def _place(module: Any) -> _Place | None:
    """What `module` multiplies with; None where that is something else than a matrix of fp32."""
    lora: Any = None
    active: tuple[str, ...] = ()
    if type(module) not in (nn.Linear, nn.Embedding):
        module, lora, active = _unwrapped(module)
    if type(module) not in (nn.Linear, nn.Embedding):
        return None
    weight = module.weight
    if weight.dtype != torch.float32 or type(weight.data) is not Tensor:
        return None
    return _Place(weight, getattr(module, "bias", None), lora, active)


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


def _build(model: Any, places: list[_Place]) -> LeanWeights:
    *places, embedding, head = places
    left = iter(places)

    def product(count: int) -> Product:
        taken = [next(left) for _ in range(count)]
        return Product([place.folded() for place in taken], [place.bias for place in taken])

    layers = []
    for layer in model.model.layers:
        attention = layer.self_attn
        norms = None
        if hasattr(attention, "q_norm"):
            norms = (Norm(attention.q_norm), Norm(attention.k_norm))
        layers.append(
            LeanLayer(
                before_attention=Norm(layer.input_layernorm),
                qkv=product(3),
                of_heads=norms,
                scale=attention.scaling,
                output=product(1),
                before_mlp=Norm(layer.post_attention_layernorm),
                gate_up=product(2),
                activation=layer.mlp.act_fn,
                down=product(1),
            )
        )
    config = model.config
    return LeanWeights(
        embedding=embedding.weight.detach(),
        layers=layers,
        norm=Norm(model.model.norm),
        head=Product([head.folded()], [head.bias]),
        rotary=model.model.rotary_emb,
        num_heads=config.num_attention_heads,
        num_key_heads=config.num_key_value_heads,
        head_dim=model.model.layers[0].self_attn.head_dim,
    )
