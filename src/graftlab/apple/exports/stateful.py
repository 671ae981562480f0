"""A model of transformers for Core ML: keys and values are a state, in operations that it can do.

    ids     (1, P) int32       the first Q are read: a piece of a prompt, or one token
    start   (1,) int32         the position of the first
    mask    (1, 1, Q, C)       0 where a token reads a position, `MASKED` where not
    keys    (layers, K, S, D)  the state, and so `values`: written from `start` on, and the first C
                               places are read
    logits  (1, Q, V)

Q is 1 or P, C one of the contexts, S the largest of those, K the number of key heads. The shape of
the mask alone says which, since Core ML mixes up shapes where several inputs have a choice.

In half precision squares of what is above 255 are infinite, and an angle of position 3000 is off
by whole radians: so norms divide by the largest value first, and rotations come from tables made
in fp32.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from inspect import signature
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from graftlab.apple.exports.whole import MASKED
from graftlab.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ATTENTION = "graftlab_stateful"
FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "gemma3_text", "smollm3", "granite")
"""Values of `model_type` whose layers hold nothing but such attention, norms and gated products."""
SINGLE = 8
"""Tokens that `read` reads one by one at the end."""
LEAST = 1e-3
"""The largest value of a row that a norm divides by is at least this."""


def require_family(model: PreTrainedModel, *, subject: str) -> None:
    """Raise ModelError for an architecture, or a rotation, that is not written here."""
    kind, own = model.config.model_type, type(model).__module__
    if kind not in FAMILIES or not own.startswith("transformers."):
        raise ModelError(
            f"{subject} is a {kind}, and target=mlpackage writes {', '.join(FAMILIES)} alone. "
            "target=gguf, target=mlx and target=merged take others."
        )
    rope = model.config.rope_parameters or {}
    for one in (rope, *(value for value in rope.values() if isinstance(value, Mapping))):
        if one.get("rope_type", "default") in ("dynamic", "longrope"):
            raise ModelError(
                f"{subject} turns positions by angles that depend on the length "
                f"({one['rope_type']}), which a table cannot hold. target=gguf and target=merged "
                "take it."
            )


class Stateful(nn.Module):
    """The graph that is traced. Takes over `model` and changes its norms, rotations, attention."""

    keys: Tensor
    values: Tensor
    places: Tensor

    def __init__(self, model: PreTrainedModel, *, length: int) -> None:
        """`length` is S. The model is in eval mode, on the CPU."""
        super().__init__()
        from transformers import AttentionInterface

        AttentionInterface.register(ATTENTION, attend)
        model.set_attn_implementation(ATTENTION)
        config = model.config
        heads = int(config.num_key_value_heads)
        width = int(getattr(config, "head_dim", None) or _width(config))
        self.groups = int(config.num_attention_heads) // heads
        self.windows = _windows(model)
        _replace(model, length)
        self.model = model
        shape = (int(config.num_hidden_layers), heads, length, width)
        dtype = model.dtype
        self.register_buffer("keys", torch.zeros(shape, dtype=dtype))
        self.register_buffer("values", torch.zeros(shape, dtype=dtype))
        self.register_buffer("places", torch.arange(length, dtype=torch.int32))

    def forward(self, ids: Tensor, start: Tensor, mask: Tensor) -> Tensor:
        count, context = mask.shape[2], mask.shape[3]
        positions = start + self.places[:count]
        masks: dict[int | None, Tensor] = {None: mask.repeat(1, 1, self.groups, 1)}
        for window in self.windows:
            outside = self.places[None, :context] <= (positions - window)[:, None]
            narrow = mask + outside.to(mask.dtype) * MASKED
            masks[window] = narrow.repeat(1, 1, self.groups, 1)
        logits: Tensor = self.model(
            ids[:, :count],
            attention_mask=mask,
            position_ids=positions[None],
            past_key_values=_Cache(self.keys, self.values, start[0], count, context),
            use_cache=True,
            stateful_masks=masks,
        ).logits
        return logits

    def reset(self) -> None:
        """Forget what was read."""
        self.keys.zero_()
        self.values.zero_()


def read(graph: Stateful, ids: Sequence[int], *, chunk: int, contexts: Sequence[int]) -> Tensor:
    """The logits (T, V) of T tokens, read in pieces and then one by one, `SINGLE` at least."""
    graph.reset()
    found, start = [], 0
    while start < len(ids):
        count = chunk if start + chunk + SINGLE <= len(ids) else 1
        context = min(size for size in contexts if size >= start + count)
        given = torch.zeros((1, chunk), dtype=torch.int32)
        given[0, :count] = torch.tensor(ids[start : start + count])
        rows = torch.arange(start, start + count)[:, None]
        mask = torch.where(torch.arange(context) <= rows, 0.0, MASKED)[None, None]
        place = torch.tensor([start], dtype=torch.int32)
        with torch.no_grad():
            found.append(graph(given, place, mask.to(graph.keys.dtype))[0])
        start += count
    return torch.cat(found)


class _Cache:
    """What layers ask of a cache of transformers: to take their keys and values."""

    is_compileable = False

    def __init__(
        self, keys: Tensor, values: Tensor, start: Tensor, count: int, context: int
    ) -> None:
        self.keys, self.values, self.context = keys, values, context
        self.start, self.end = start, start + count

    def update(self, key: Tensor, value: Tensor, layer: int, *_: Any) -> tuple[Tensor, Tensor]:
        """Write (1, K, Q, D) at its place; the first C places of the layer, (1, K, C, D)."""
        self.keys[layer : layer + 1, :, self.start : self.end] = key
        self.values[layer : layer + 1, :, self.start : self.end] = value
        return (
            self.keys[layer : layer + 1, :, : self.context],
            self.values[layer : layer + 1, :, : self.context],
        )

    def get_seq_length(self, layer: int = 0) -> int:
        """Not asked for what matters: positions are given."""
        return 0


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float,
    stateful_masks: Mapping[int | None, Tensor],
    sliding_window: int | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """query (1, H, Q, D) on keys and values (1, K, C, D) -> (1, Q, H, D).

    The H / K heads that share keys are rows of one product, so that no key is copied.
    """
    _, heads, _, width = query.shape
    shared, groups = int(key.shape[1]), int(heads) // int(key.shape[1])
    rows = query.reshape(1, shared, -1, int(width))
    if (own := scaling * int(width) ** 0.5) != 1:
        rows = rows * own
    mask = stateful_masks[sliding_window]
    made = functional.scaled_dot_product_attention(rows, key, value, attn_mask=mask)
    made = made.reshape(1, shared * groups, -1, int(width))
    return made.transpose(1, 2), None


class Norm(nn.Module):
    """An RMS norm whose squares stay below 1; the same as the one of transformers."""

    root: Tensor

    def __init__(self, weight: Tensor, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)
        # A tensor: coremltools adds an epsilon of its own where a number is divided.
        self.register_buffer("root", torch.tensor([eps**0.5]))

    def forward(self, hidden: Tensor) -> Tensor:
        largest = hidden.abs().amax(-1, keepdim=True).clamp(min=LEAST)
        small = hidden / largest
        floor = self.root / largest
        normed = small * torch.rsqrt((small * small).mean(-1, keepdim=True) + floor * floor)
        return normed * self.weight


class Rotations(nn.Module):
    """Cosines and sines of the first positions, by kind of layer, as the model computes them."""

    def __init__(self, rotary: nn.Module, length: int, kinds: Sequence[str | None]) -> None:
        super().__init__()
        places, like = torch.arange(length)[None], torch.zeros(1, dtype=torch.float32)
        for kind in kinds:
            cosines, sines = rotary(like, places, **({"layer_type": kind} if kind else {}))
            self.register_buffer(f"cos_{kind}", cosines[0].contiguous())
            self.register_buffer(f"sin_{kind}", sines[0].contiguous())

    def forward(
        self, hidden: Tensor, position_ids: Tensor, layer_type: str | None = None
    ) -> tuple[Tensor, ...]:
        tables = (getattr(self, f"{leaf}_{layer_type}") for leaf in ("cos", "sin"))
        return tuple(functional.embedding(position_ids, table) for table in tables)


def _replace(model: PreTrainedModel, length: int) -> None:
    """Put norms and rotations of our own in the place of the model's."""
    kinds: Sequence[str | None] = [None]
    if "layer_type" in signature(model.model.rotary_emb.forward).parameters:
        kinds = sorted(set(model.config.layer_types))
    model.model.rotary_emb = Rotations(model.model.rotary_emb, length, kinds)
    for parent in list(model.modules()):
        for name, module in parent.named_children():
            if not type(module).__name__.endswith("RMSNorm"):
                continue
            eps = getattr(module, "variance_epsilon", getattr(module, "eps", None))
            assert eps is not None, f"{type(module).__name__} says no epsilon"
            weight = module.weight.detach()
            if type(module).__name__.startswith("Gemma"):
                weight = weight + 1
            setattr(parent, name, Norm(weight, float(eps)))


def _windows(model: PreTrainedModel) -> list[int]:
    """The widths of attention windows that layers have."""
    config = model.config
    own = {getattr(m, "sliding_window", None) for m in model.modules() if hasattr(m, "layer_idx")}
    if config.model_type == "mistral":
        own.add(getattr(config, "sliding_window", None))
    return sorted(window for window in own if window)


def _width(config: Any) -> int:
    return int(config.hidden_size) // int(config.num_attention_heads)
