"""Attention within each document of a flat row, as one opaque operator with its own backward.

    boundaries [0, 4, 7, 9]        scores of document B only, one block of queries at a time
    documents  A A A A B B B C C   (the rest is never computed):

                keys  A A A A B B B C C
        queries    B          x
                   B          x x        <- a block: all heads that share a key head are its rows,
                   B          x x x         so grouped-query attention needs no copies of the keys

The forward runs PyTorch's CPU flash kernel per document where that serves (plain causal attention)
and explicit blocks elsewhere: sliding windows, softcap, other devices. The backward recomputes the
probabilities in blocks (the idea of arXiv 2205.14135) and consists of matrix products and two fused
softmax kernels; in bf16 that takes 0.4 (documents of 128 tokens) to 0.9 of the time of the flash
kernel's own backward, which in fp32 is the faster one and serves there. For half precision the
row's log-sum-exp is subtracted *inside* the product that yields the scores: softmax does not notice
a shift, and the entries that matter come out near zero, where rounding is finest.

Shapes: (N, H, D) queries, (N, K, D) keys and values, H a multiple of K; all tensors token-major.
"""

from __future__ import annotations

import hashlib
import math
from itertools import pairwise
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

BLOCK = 256
"""Queries per block: large enough for matrix products, small enough for the caches."""
MAX_SCORES = 1 << 25
"""Most scores (heads x queries x keys) held at once; shortens the blocks of long documents."""

# The compiler keeps whole backward graphs on disk, keyed by the names of the forward's operators: a
# graph that calls an earlier version of this file must not be found by a later one.
_DIGEST = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:8]

_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_flash_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    boundaries: Tensor,
    *,
    scale: float,
    window: int | None = None,
    softcap: float | None = None,
) -> Tensor:
    """Causal attention within each document: (N, H, D) in the dtype of `value`.

    `boundaries` are cumulative offsets [0, ..., N], int32 on the CPU. With `window`, a query sees
    itself and the `window - 1` positions before it; `softcap` bounds the scores to +-softcap.
    """
    dtype = value.dtype
    out, _ = segments_forward(
        query.to(dtype), key.to(dtype), value, boundaries, scale, window or 0, softcap or 0.0
    )
    return cast("Tensor", out)


@torch.library.custom_op(f"graftlab::segments_forward_{_DIGEST}", mutates_args=())
def segments_forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    boundaries: Tensor,
    scale: float,
    window: int,
    softcap: float,
) -> tuple[Tensor, Tensor]:
    """Outputs (N, H, D) and the log-sum-exp of each score row (N, H) in fp32 (fp64 for fp64).

    `window` 0 and `softcap` 0.0 mean none: operators take no optional numbers cheaply.
    """
    out, lse = _empty_outputs(query)
    with torch.autocast(query.device.type, enabled=False):
        for start, end in _extents(boundaries):
            q, k, v = (x[start:end].transpose(0, 1) for x in (query, key, value))
            if _flash_serves(query, end - start, window, softcap):
                result, row_lse = _flash(q[None], k[None], v[None], 0.0, True, scale=scale)
                out[start:end] = result[0].transpose(0, 1)
                lse[start:end] = row_lse[0].T
                continue
            k, v = k.contiguous(), v.contiguous()
            for first, last in _blocks(end - start, query.shape[1]):
                low = max(0, first - window + 1) if window else 0
                block, row_lse = _block_forward(
                    q[:, first:last], k[:, low:last], v[:, low:last], scale, window, softcap
                )
                out[start + first : start + last] = block.transpose(0, 1)
                lse[start + first : start + last] = row_lse.T
    return out, lse


@torch.library.custom_op(f"graftlab::segments_backward_{_DIGEST}", mutates_args=())
def segments_backward(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    lse: Tensor,
    boundaries: Tensor,
    scale: float,
    window: int,
    softcap: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of query (N, H, D), key and value (N, K, D), each in its own dtype."""
    grads = _empty_gradients(query, key, value)
    with torch.autocast(query.device.type, enabled=False):
        for start, end in _extents(boundaries):
            g, q, k, v, o = (x[start:end].transpose(0, 1) for x in (grad, query, key, value, out))
            row_lse = lse[start:end].T
            if query.dtype == lse.dtype and _flash_serves(query, end - start, window, softcap):
                batched = (x[None] for x in (g, q, k, v, o, row_lse))
                parts = tuple(part[0] for part in _flash_backward(*batched, 0.0, True, scale=scale))
            else:
                parts = _document_backward(g, q, k, v, row_lse, scale, window, softcap)
            for full, part in zip(grads, parts, strict=True):
                full[start:end] = part.transpose(0, 1)
    return grads


@segments_forward.register_fake
def _(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    boundaries: Tensor,
    scale: float,
    window: int,
    softcap: float,
) -> tuple[Tensor, Tensor]:
    return _empty_outputs(query)


@segments_backward.register_fake
def _(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    lse: Tensor,
    boundaries: Tensor,
    scale: float,
    window: int,
    softcap: float,
) -> tuple[Tensor, Tensor, Tensor]:
    return _empty_gradients(query, key, value)


# The fake implementations above and the real ones share these two, so that the dtypes and strides
# a compiled graph assumes are those it gets: a gradient of another dtype would be read as garbage.
def _empty_outputs(query: Tensor) -> tuple[Tensor, Tensor]:
    lse_dtype = torch.float64 if query.dtype == torch.float64 else torch.float32
    return query.new_empty(query.shape), query.new_empty(query.shape[:2], dtype=lse_dtype)


def _empty_gradients(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return (query.new_empty(query.shape), key.new_empty(key.shape), value.new_empty(value.shape))


def _setup(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    query, key, value, boundaries, ctx.scale, ctx.window, ctx.softcap = inputs
    ctx.save_for_backward(query, key, value, *output, boundaries)


def _backward(ctx, grad, _grad_lse):  # type: ignore[no-untyped-def]
    grads = segments_backward(grad, *ctx.saved_tensors, ctx.scale, ctx.window, ctx.softcap)
    return *grads, None, None, None, None


segments_forward.register_autograd(_backward, setup_context=_setup)


def _extents(boundaries: Tensor) -> list[tuple[int, int]]:
    return list(pairwise(boundaries.tolist()))


def _blocks(length: int, heads: int) -> list[tuple[int, int]]:
    size = max(16, min(BLOCK, MAX_SCORES // (heads * length)))
    return [(first, min(first + size, length)) for first in range(0, length, size)]


def _flash_serves(query: Tensor, length: int, window: int, softcap: float) -> bool:
    return query.device.type == "cpu" and not softcap and not 0 < window < length


def _scores(q: Tensor, k: Tensor, *, shift: Tensor | None) -> Tensor:
    """q k^T (+ shift), (K, R, D) and (K, T, D) -> (K, R, T); `shift` is (K, R, 1)."""
    if shift is None:
        return torch.bmm(q, k.mT)
    return torch.baddbmm(shift, q, k.mT)


def _mask(scores: Tensor, groups: int, window: int) -> None:
    """Set what a query may not see to -inf, in place.

    `scores` (K, groups * b, T) belong to the last b of the T positions.
    """
    keys = scores.shape[2]
    queries = scores.shape[1] // groups
    view = scores.view(-1, groups, queries, keys)
    square = torch.ones(queries, queries, dtype=torch.bool, device=scores.device)
    view[..., keys - queries :].masked_fill_(square.triu(1), -math.inf)
    if window and keys > window:
        # Query i stands at position keys - queries + i and sees nothing before i + reach.
        reach = keys - queries - window + 1
        outside = torch.ones(queries, keys, dtype=torch.bool, device=scores.device)
        view.masked_fill_(outside.tril(reach - 1), -math.inf)


def _block_forward(
    q: Tensor, k: Tensor, v: Tensor, scale: float, window: int, softcap: float
) -> tuple[Tensor, Tensor]:
    """Outputs (H, b, D) and log-sum-exps (H, b) of the last b positions, scores held in fp32."""
    heads, queries, _ = q.shape
    groups = heads // k.shape[0]
    wide = torch.promote_types(q.dtype, torch.float32)
    rows = (q.to(wide) * scale).reshape(k.shape[0], groups * queries, -1)
    scores = _scores(rows, k.to(wide), shift=None)
    if softcap:
        scores.div_(softcap).tanh_().mul_(softcap)
    _mask(scores, groups, window)
    lse = scores.logsumexp(-1)
    weights = torch.softmax(scores, -1).to(v.dtype)
    return torch.bmm(weights, v).view(heads, queries, -1), lse.view(heads, queries)


def _document_backward(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    lse: Tensor,
    scale: float,
    window: int,
    softcap: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of one document: grad, query (H, T, D), key, value (K, T, D), lse (H, T)."""
    heads, length, width = query.shape
    key_heads = key.shape[0]
    groups = heads // key_heads
    wide = torch.promote_types(query.dtype, torch.float32)
    # A capped score cannot be shifted before the cap, so its product is taken in fp32 instead.
    dtype = wide if softcap else query.dtype
    k, v = key.to(dtype).contiguous(), value.contiguous()
    grad_query = torch.empty_like(query, memory_format=torch.contiguous_format)
    # Transposed, because (D, R) x (R, T) is the faster form of these two products.
    grad_key = torch.zeros(key_heads, width, length, dtype=wide, device=key.device)
    grad_value = torch.zeros(key_heads, value.shape[2], length, dtype=wide, device=key.device)

    def rows(x: Tensor) -> Tensor:
        return x.reshape(key_heads, -1, x.shape[-1])

    for first, last in _blocks(length, heads):
        low = max(0, first - window + 1) if window else 0
        q = rows(query[:, first:last].to(dtype) * scale)
        g = rows(grad[:, first:last])
        half = dtype != wide
        shift = rows(-lse[:, first:last, None]).to(dtype) if half else None
        scores = _scores(q, k[:, low:last], shift=shift)
        slope = None
        if softcap:
            capped = scores.div_(softcap).tanh_()
            slope = 1 - capped.square()
            scores = capped.mul_(softcap)
        _mask(scores, groups, window)
        weights = torch.softmax(scores, -1)
        grad_value[..., low:last] += torch.bmm(g.mT, weights.to(g.dtype))
        grad_weights = torch.bmm(g, v[:, low:last].mT).to(dtype)
        grad_scores = torch._softmax_backward_data(grad_weights, weights, -1, dtype)
        if slope is not None:
            grad_scores = grad_scores * slope
        part = torch.bmm(grad_scores, k[:, low:last]).mul_(scale)
        grad_query[:, first:last] = part.view(heads, last - first, width)
        grad_key[..., low:last] += torch.bmm(q.mT, grad_scores)
    return grad_query, grad_key.mT, grad_value.mT
