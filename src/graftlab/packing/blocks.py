"""Causal attention in explicit blocks of queries: for windows, softcaps, other devices, backward.

    keys      P P P P P P R R R R        a prefix, and the queries' own positions at the end
    block             R   x x x x        all heads that share a key head are its rows, so
              x x x x x x x x            grouped-query attention needs no copies of the keys

For half precision the row's log-sum-exp is subtracted *inside* the product that yields the scores:
softmax does not notice a shift, and the entries that matter come out near zero, where rounding is
finest.

H query heads, K key heads (H a multiple of K), R queries, T keys: the last R are the queries' own.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

BLOCK = 256
"""Queries per block: large enough for matrix products, small enough for the caches."""
MAX_SCORES = 1 << 25
"""Most scores (heads x queries x keys) held at once; shortens the blocks of long documents."""


def query_blocks(length: int, heads: int, keys: int) -> list[tuple[int, int]]:
    """Extents of the blocks among `length` queries."""
    size = max(16, min(BLOCK, MAX_SCORES // (heads * keys)))
    return [(first, min(first + size, length)) for first in range(0, length, size)]


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


def keys_seen(first: int, last: int, window: int) -> tuple[int, int]:
    """Which keys the queries at positions first..last see: themselves, and those before them."""
    return (max(0, first - window + 1) if window else 0), last


def block_forward(
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


def run_backward(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    lse: Tensor,
    scale: float,
    window: int,
    softcap: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of one run: grad, query (H, R, D), key, value (K, T, D), lse (H, R).

    Those of keys and values are in fp32 or wider.
    """
    heads, length, width = query.shape
    key_heads, keys, _ = key.shape
    before = keys - length
    groups = heads // key_heads
    wide = torch.promote_types(query.dtype, torch.float32)
    # A capped score cannot be shifted before the cap, so its product is taken in fp32 instead.
    dtype = wide if softcap else query.dtype
    k, v = key.to(dtype).contiguous(), value.contiguous()
    grad_query = torch.empty_like(query, memory_format=torch.contiguous_format)
    # Transposed, because (D, R) x (R, T) is the faster form of these two products.
    grad_key = torch.zeros(key_heads, width, keys, dtype=wide, device=key.device)
    grad_value = torch.zeros(key_heads, value.shape[2], keys, dtype=wide, device=key.device)

    def rows(x: Tensor) -> Tensor:
        return x.reshape(key_heads, -1, x.shape[-1])

    for first, last in query_blocks(length, heads, keys):
        low, high = keys_seen(before + first, before + last, window)
        q = rows(query[:, first:last].to(dtype) * scale)
        g = rows(grad[:, first:last])
        half = dtype != wide
        shift = rows(-lse[:, first:last, None]).to(dtype) if half else None
        scores = _scores(q, k[:, low:high], shift=shift)
        slope = None
        if softcap:
            capped = scores.div_(softcap).tanh_()
            slope = 1 - capped.square()
            scores = capped.mul_(softcap)
        _mask(scores, groups, window)
        weights = torch.softmax(scores, -1)
        grad_value[..., low:high] += torch.bmm(g.mT, weights.to(g.dtype))
        grad_weights = torch.bmm(g, v[:, low:high].mT).to(dtype)
        grad_scores = torch._softmax_backward_data(grad_weights, weights, -1, dtype)
        if slope is not None:
            grad_scores = grad_scores * slope
        part = torch.bmm(grad_scores, k[:, low:high]).mul_(scale)
        grad_query[:, first:last] = part.view(heads, last - first, width)
        grad_key[..., low:high] += torch.bmm(q.mT, grad_scores)
    return grad_query, grad_key.mT, grad_value.mT
