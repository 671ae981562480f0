"""Attention for flat rows of packed documents, registered with transformers under `ATTENTION`.

One function, three backends with the same result:

    segments   one causal attention per document; CPU, MPS, and CUDA where varlen does not serve
    varlen     torch.nn.attention.varlen, one kernel for all documents; CUDA, bf16 and fp16
    dense      scaled_dot_product_attention under a block-diagonal causal mask; the slow reference

A model passes three keyword arguments of its forward through to here: `boundaries`, the offsets
[0, ..., N] (int32, on the CPU) of the segments of the flat row (1, N); `parents` (int32, likewise),
the segment that each continues, or None where each is a document; and `packed_backend`. Nothing is
kept between calls, so recomputation under gradient checkpointing and compiled layers see the same
documents as the first pass.

H query heads, K key heads (H a multiple of K), D the width of a head.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from graftlab.errors import ModelError, require_choice
from graftlab.packing.attention_segments import attend as segments
from graftlab.packing.runs import find_runs
from graftlab.types import PACKABLE, widest

ATTENTION = "graftlab_packed"
"""The name to load a model with; holds neither "sdpa" nor "flex_attention", for which transformers
would build a mask of its own."""

BACKENDS = ("segments", "varlen", "dense")
OWN = (
    "model.attention=own serves: each document is computed by itself, in the model's own attention."
)
"""The remedy where attention cannot be packed."""
VARLEN_HEAD_DIM = 256
"""Widest head of the flash kernels behind varlen."""


def register() -> None:
    """Make `attn_implementation=ATTENTION` known to transformers; safe to call again."""
    from transformers import AttentionInterface

    AttentionInterface.register(ATTENTION, packed_attention)


def choose_backend(
    attention: str, device: torch.device | str, dtype: torch.dtype, config: Any
) -> tuple[str, str]:
    """The backend for `attention` (auto or a name) and the reason, in words for the log.

    `dtype` is the one attention computes in, `config` the text model's. Raises ConfigError where
    the named backend cannot serve, ModelError where the model attends in a way of its own.
    """
    require_choice("model.attention", attention, ("auto", *BACKENDS))
    if foreign := sorted(set(getattr(config, "layer_types", None) or ()) - PACKABLE):
        raise ModelError(
            f"model.attention={attention}: this model has layers of kind {', '.join(foreign)}, "
            f"whose attention is not known here. {OWN}"
        )
    device = torch.device(device)
    obstacle = _varlen_obstacle(device, dtype, config)
    if attention == "dense":
        return "dense", "as configured (the slow reference: all pairs of positions are computed)"
    if attention == "varlen" or (attention == "auto" and obstacle is None):
        if obstacle is not None:
            raise ModelError(f"model.attention=varlen cannot serve: {obstacle}. Use auto.")
        return "varlen", "one flash kernel over all documents on CUDA"
    if _unequal(config):
        if attention == "segments":
            raise ModelError("model.attention=segments needs keys as wide as values; use auto.")
        return "dense", "keys and values differ in width"
    if attention == "segments":
        return "segments", "as configured"
    return "segments", "one attention per document" + (
        f" (varlen does not serve: {obstacle})" if device.type == "cuda" else ""
    )


def packed_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    boundaries: Tensor | None = None,
    parents: Tensor | None = None,
    packed_backend: str = "segments",
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Causal attention within each document, in the signature transformers calls.

    query (1, H, N, D), key and value (1, K, N, D) -> (1, N, H, D), in the dtype of `value`: under
    autocast that is the compute dtype, while rotary embeddings may have widened the other two. The
    base's own attention dropout is not applied: the base is a fixed function.
    """
    if boundaries is None or attention_mask is not None:
        # Or the caller's mistake: replies are generated inside `with base.plain()`.
        raise ModelError(
            f"{type(module).__name__} is not told which documents a row holds, or has a mask of "
            f"its own. {OWN}"
        )
    assert query.shape[0] == 1, "packed rows are flat"
    assert query.shape[2] == key.shape[2], "packed rows are computed without a cache"
    if kwargs.get("s_aux") is not None or kwargs.get("position_bias") is not None:
        raise ModelError(
            f"{type(module).__name__} has attention sinks or position biases, which packed rows "
            f"do not. {OWN}"
        )
    attend = _ATTEND[packed_backend]
    out = attend(
        query[0].transpose(0, 1),
        key[0].transpose(0, 1),
        value[0].transpose(0, 1),
        boundaries,
        scale=query.shape[-1] ** -0.5 if scaling is None else scaling,
        window=sliding_window,
        softcap=softcap,
        parents=parents,
    )
    return out[None], None


def varlen(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    boundaries: Tensor,
    *,
    scale: float,
    window: int | None = None,
    softcap: float | None = None,
    parents: Tensor | None = None,
) -> Tensor:
    """`segments.attend` through `torch.nn.attention.varlen`; no softcap, fp16 or bf16 only."""
    from torch.nn.attention.varlen import varlen_attn

    assert not softcap, "choose_backend does not choose varlen for a softcap"
    if parents is not None:
        from graftlab.packing.attention_varlen import attend

        return attend(
            query.to(value.dtype), key.to(value.dtype), value, boundaries, parents, scale, window
        )
    offsets = boundaries.to(query.device, non_blocking=True)
    # The row's length bounds every document's: reading the longest would wait for nothing and
    # break a compiled graph, and blocks beyond a document's end return at once.
    longest = query.shape[0]
    out = varlen_attn(
        query.to(value.dtype),
        key.to(value.dtype),
        value,
        offsets,
        offsets,
        longest,
        longest,
        scale=scale,
        window_size=(window - 1 if window else -1, 0),
        enable_gqa=query.shape[1] != key.shape[1],
    )
    assert isinstance(out, Tensor)
    return out


def dense(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    boundaries: Tensor,
    *,
    scale: float,
    window: int | None = None,
    softcap: float | None = None,
    parents: Tensor | None = None,
) -> Tensor:
    """`segments.attend` over all N x N pairs under a boolean mask: the reference, and slow."""
    if parents is None:
        mask = dense_mask(boundaries.to(query.device), query.shape[0], window)
    else:
        mask = branched_mask(boundaries, parents, window).to(query.device)
    groups = query.shape[1] // key.shape[1]
    q = query.to(value.dtype).transpose(0, 1)
    k = key.to(value.dtype).repeat_interleave(groups, 1).transpose(0, 1)
    v = value.repeat_interleave(groups, 1).transpose(0, 1)
    if not softcap:
        out = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)
        return out.transpose(0, 1)
    wide = torch.promote_types(q.dtype, torch.float32)
    scores = softcap * torch.tanh((q.to(wide) @ k.to(wide).mT) * (scale / softcap))
    weights = scores.masked_fill(~mask, float("-inf")).softmax(-1)
    return (weights.to(v.dtype) @ v).transpose(0, 1)


def dense_mask(boundaries: Tensor, length: int, window: int | None) -> Tensor:
    """(N, N) bool, true where row i may see column j: same document, j <= i, i - j < window."""
    positions = torch.arange(length, device=boundaries.device)
    document = torch.bucketize(positions, boundaries[1:], right=True)
    distance = positions[:, None] - positions[None]
    mask = (document[:, None] == document[None]) & (distance >= 0)
    return mask & (distance < window) if window else mask


@torch.compiler.disable  # type: ignore[untyped-decorator]  # loops over segments
def branched_mask(boundaries: Tensor, parents: Tensor, window: int | None) -> Tensor:
    """`dense_mask` for segments that continue others: a row sees its run's prefix too."""
    length = int(boundaries[-1])
    mask = torch.zeros(length, length, dtype=torch.bool)
    for start, end, prefix in find_runs(boundaries, parents):
        seen = [torch.arange(first, last) for first, last in (*prefix, (start, end))]
        columns = torch.cat(seen)
        keys = torch.arange(len(columns))
        queries = keys[len(columns) - (end - start) :, None]
        visible = keys <= queries
        if window:
            visible &= queries - keys < window
        mask[start:end, columns] = visible
    return mask


_ATTEND = {"segments": segments, "varlen": varlen, "dense": dense}


def _head_dim(config: Any) -> int:
    # Latent attention has a part with positions and one without.
    parts = (widest(config, f"qk_{part}_head_dim") for part in ("nope", "rope"))
    named = getattr(config, "qk_head_dim", None) or sum(parts) or widest(config, "head_dim")
    return int(named or config.hidden_size // widest(config, "num_attention_heads"))


def _unequal(config: Any) -> bool:
    return widest(config, "v_head_dim") not in (0, _head_dim(config))


def _varlen_obstacle(device: torch.device, dtype: torch.dtype, config: Any) -> str | None:
    """Why varlen cannot serve, or None if it can."""
    if device.type != "cuda":
        return f"it runs on CUDA, this is {device.type}"
    if torch.cuda.get_device_capability(device) < (8, 0):
        return "its kernels need compute capability 8.0"
    if dtype not in (torch.bfloat16, torch.float16):
        return f"it computes in bf16 or fp16, this is {str(dtype).removeprefix('torch.')}"
    if getattr(config, "attn_logit_softcapping", None):
        return "it knows no softcap"
    if _unequal(config):
        return "keys and values differ in width"
    if _head_dim(config) > VARLEN_HEAD_DIM or _head_dim(config) % 8:
        return f"heads of width {_head_dim(config)} do not fit its kernels"
    return None
