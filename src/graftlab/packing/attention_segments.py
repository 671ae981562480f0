"""Attention within each document of a flat row, as one opaque operator with its own backward.

    boundaries [0, 4, 7, 9]        one attention per document, or per branch of one (`runs.py`):
    documents  A A A A B B B C C   the rest is never computed

                keys  A A A A B B B C C
        queries    B          x
                   B          x x
                   B          x x x

The forward runs PyTorch's CPU flash kernel per document where that serves (causal attention, also
behind a prefix) and explicit blocks elsewhere: sliding windows, softcap, other devices. The
backward recomputes the probabilities in blocks (the idea of arXiv 2205.14135) and consists of
matrix products and two fused softmax kernels; in bf16 that takes 0.4 (documents of 128 tokens) to
0.9 of the time of the flash kernel's own, which in fp32 is the faster one and serves there.

Shapes: (N, H, D) queries, (N, K, D) keys and values, H a multiple of K; all tensors token-major.
"""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from graftlab.packing.blocks import block_forward, keys_seen, query_blocks, run_backward
from graftlab.packing.runs import Run, find_runs

# The compiler keeps whole backward graphs on disk, keyed by the names of the forward's operators: a
# graph that calls an earlier version of these files must not be found by a later one.
_SOURCES = [Path(__file__).with_name(f"{name}.py") for name in ("runs", "blocks")]
_DIGEST = hashlib.sha256(
    b"".join(path.read_bytes() for path in (Path(__file__), *_SOURCES))
).hexdigest()[:8]

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
    parents: Tensor | None = None,
) -> Tensor:
    """Causal attention within each document: (N, H, D) in the dtype of `value`.

    `boundaries` are cumulative offsets [0, ..., N] of the segments and `parents` (segments,) says
    which of them each continues, both int32 on the CPU; without it, each is a document. With
    `window`, a query sees itself and the `window - 1` positions before it; `softcap` bounds the
    scores to +-softcap.
    """
    dtype = value.dtype
    out, _ = segments_forward(
        query.to(dtype),
        key.to(dtype),
        value,
        boundaries,
        parents,
        scale,
        window or 0,
        softcap or 0.0,
    )
    return cast("Tensor", out)


@torch.library.custom_op(f"graftlab::segments_forward_{_DIGEST}", mutates_args=())
def segments_forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    boundaries: Tensor,
    parents: Tensor | None,
    scale: float,
    window: int,
    softcap: float,
) -> tuple[Tensor, Tensor]:
    """Outputs (N, H, D) and the log-sum-exp of each score row (N, H) in fp32 (fp64 for fp64).

    `window` 0 and `softcap` 0.0 mean none: operators take no optional numbers cheaply.
    """
    out, lse = _empty_outputs(query)
    with torch.autocast(query.device.type, enabled=False):
        for run in find_runs(boundaries, parents):
            start, end, before = run.start, run.end, run.before
            q = query[start:end].transpose(0, 1)
            k, v = (run_keys(x, run).transpose(0, 1) for x in (key, value))
            if _flash_serves(query, k.shape[1], window, softcap):
                mask = _prefix_mask(q, before)
                result, row_lse = _flash(
                    q[None], k[None], v[None], 0.0, mask is None, attn_mask=mask, scale=scale
                )
                out[start:end] = result[0].transpose(0, 1)
                lse[start:end] = row_lse[0].T
                continue
            k, v = k.contiguous(), v.contiguous()
            for first, last in query_blocks(end - start, query.shape[1], k.shape[1]):
                low, high = keys_seen(before + first, before + last, window)
                block, row_lse = block_forward(
                    q[:, first:last], k[:, low:high], v[:, low:high], scale, window, softcap
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
    parents: Tensor | None,
    scale: float,
    window: int,
    softcap: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of query (N, H, D), key and value (N, K, D), each in its own dtype."""
    grads = _empty_gradients(query, key, value)
    # What several branches add to their prompt is summed before it is rounded.
    sums = grads[1:] if parents is None else [x.to(lse.dtype) for x in grads[1:]]
    with torch.autocast(query.device.type, enabled=False):
        for run in find_runs(boundaries, parents):
            own = slice(run.start, run.end)
            g, q, o = (x[own].transpose(0, 1) for x in (grad, query, out))
            k, v = (run_keys(x, run).transpose(0, 1) for x in (key, value))
            row_lse = lse[own].T
            if query.dtype == lse.dtype and _flash_serves(query, k.shape[1], window, softcap):
                mask = _prefix_mask(q, run.before)
                batched = (x[None] for x in (g, q, k, v, o, row_lse))
                found = _flash_backward(*batched, 0.0, mask is None, attn_mask=mask, scale=scale)
                parts = tuple(part[0] for part in found)
            else:
                parts = run_backward(g, q, k, v, row_lse, scale, window, softcap)
            grads[0][own] = parts[0].transpose(0, 1)
            for full, part in zip(sums, parts[1:], strict=True):
                add_keys(full, part.transpose(0, 1), run)
    return grads[0], sums[0].to(key.dtype), sums[1].to(value.dtype)


@segments_forward.register_fake
def _(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    boundaries: Tensor,
    parents: Tensor | None,
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
    parents: Tensor | None,
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
    query, key, value, boundaries, parents, ctx.scale, ctx.window, ctx.softcap = inputs
    ctx.save_for_backward(query, key, value, *output, boundaries, parents)


def _backward(ctx, grad, _grad_lse):  # type: ignore[no-untyped-def]
    grads = segments_backward(grad, *ctx.saved_tensors, ctx.scale, ctx.window, ctx.softcap)
    return *grads, None, None, None, None, None


segments_forward.register_autograd(_backward, setup_context=_setup)

OPERATORS = (segments_forward._opoverload, segments_backward._opoverload)
"""Both passes, as PyTorch's dispatcher knows them."""


def run_keys(x: Tensor, run: Run) -> Tensor:
    """Keys or values (T, K, D) that a run sees: its prefix and itself. A view without a prefix."""
    own = x[run.start : run.end]
    return torch.cat([*(x[start:end] for start, end in run.prefix), own]) if run.prefix else own


def add_keys(full: Tensor, part: Tensor, run: Run) -> None:
    """Gradients (T, K, D) of `run_keys` into those of all N positions, run after run in order.

    A run is the only one to hold its own positions, so these are written, not added.
    """
    at = 0
    for start, end in run.prefix:
        full[start:end] += part[at : at + end - start]
        at += end - start
    full[run.start : run.end] = part[at:]


def _flash_serves(query: Tensor, length: int, window: int, softcap: float) -> bool:
    return query.device.type == "cpu" and not softcap and not 0 < window < length


def _prefix_mask(q: Tensor, before: int) -> Tensor | None:
    """What R queries (H, R, D) behind a prefix see, (R, before + R), to be added to the scores.

    None without a prefix: the kernel's own causal masking skips what this would hide.
    """
    if not before:
        return None
    length = q.shape[1]
    own = torch.full((length, length), -math.inf, dtype=q.dtype, device=q.device).triu(1)
    return torch.cat([own.new_zeros(length, before), own], 1)
