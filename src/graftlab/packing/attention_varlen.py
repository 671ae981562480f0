"""`varlen` for documents in branches: keys are gathered once for each run that sees them.

    runs       P P P P C C C | R R          queries lie as they are
    keys       P P P P C C C | P P P P R R  offsets of queries and keys differ

Where a run has more keys than queries, the flash kernel's causal mask ends at the last of both, so
the queries see all of their prefix. The operator is opaque to the compiler, as `segments` is: how
many keys are gathered depends on the batch.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.attention.varlen  # registers the operators that are called below
from torch import Tensor

from graftlab.packing.attention_segments import add_keys, run_keys
from graftlab.packing.runs import Run, find_runs

_SOURCES = [
    Path(__file__),
    *(Path(__file__).with_name(f"{n}.py") for n in ("attention_segments", "runs")),
]
_DIGEST = hashlib.sha256(b"".join(path.read_bytes() for path in _SOURCES)).hexdigest()[:8]
_RNG = 2  # numbers of a generator's state, which nothing is drawn from


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    boundaries: Tensor,
    parents: Tensor,
    scale: float,
    window: int | None,
) -> Tensor:
    """`attention_segments.attend` with `parents`: (N, H, D), all in the same half precision."""
    out, _ = varlen_forward(query.contiguous(), key, value, boundaries, parents, scale, window or 0)
    return cast("Tensor", out)


@torch.library.custom_op(f"graftlab::varlen_forward_{_DIGEST}", mutates_args=())
def varlen_forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    boundaries: Tensor,
    parents: Tensor,
    scale: float,
    window: int,
) -> tuple[Tensor, Tensor]:
    """Outputs (N, H, D) and the log-sum-exps of the score rows (H, N) in fp32; `window` 0: none."""
    runs = find_runs(boundaries, parents)
    k, v = _gathered(key, runs), _gathered(value, runs)
    gqa = query.shape[1] != key.shape[1]
    sides = _sides(window)
    out, lse, _ = torch.ops.torch_attn._varlen_attn(
        query, k, v, *_extents(runs, query.device), sides == [-1, 0], scale, sides, gqa
    )
    return out, lse


@torch.library.custom_op(f"graftlab::varlen_backward_{_DIGEST}", mutates_args=())
def varlen_backward(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    lse: Tensor,
    boundaries: Tensor,
    parents: Tensor,
    scale: float,
    window: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of query (N, H, D), key and value (N, K, D)."""
    runs = find_runs(boundaries, parents)
    k, v = _gathered(key, runs), _gathered(value, runs)
    sides = _sides(window)
    state = torch.zeros(_RNG, dtype=torch.uint64, device=query.device)
    grad_query, *parts = torch.ops.torch_attn._varlen_attn_backward(
        grad.contiguous(),
        query,
        k,
        v,
        out,
        lse,
        *_extents(runs, query.device),
        sides == [-1, 0],
        state,
        scale,
        sides,
    )
    return grad_query, _scattered(parts[0], key, runs), _scattered(parts[1], value, runs)


@varlen_forward.register_fake
def _(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    boundaries: Tensor,
    parents: Tensor,
    scale: float,
    window: int,
) -> tuple[Tensor, Tensor]:
    lse = query.new_empty((query.shape[1], query.shape[0]), dtype=torch.float32)
    return torch.empty_like(query), lse


@varlen_backward.register_fake
def _(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    lse: Tensor,
    boundaries: Tensor,
    parents: Tensor,
    scale: float,
    window: int,
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(query), key.new_empty(key.shape), value.new_empty(value.shape)


def _setup(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    query, key, value, boundaries, parents, ctx.scale, ctx.window = inputs
    ctx.save_for_backward(query, key, value, *output, boundaries, parents)


def _backward(ctx, grad, _grad_lse):  # type: ignore[no-untyped-def]
    grads = varlen_backward(grad, *ctx.saved_tensors, ctx.scale, ctx.window)
    return *grads, None, None, None, None


varlen_forward.register_autograd(_backward, setup_context=_setup)


def _sides(window: int) -> list[int]:
    """How far a query sees to the left and to the right."""
    return [window - 1 if window else -1, 0]


def _gathered(x: Tensor, runs: list[Run]) -> Tensor:
    """Keys or values (M, K, D) of all runs, M >= N."""
    return torch.cat([run_keys(x, run) for run in runs])


def _scattered(parts: Tensor, like: Tensor, runs: list[Run]) -> Tensor:
    """Gradients (M, K, D) of what was gathered, summed in fp32 where runs share a position."""
    wide = torch.promote_types(like.dtype, torch.float32)
    full = like.new_empty(like.shape, dtype=wide)
    at = 0
    for run in runs:
        length = run.before + run.end - run.start
        add_keys(full, parts[at : at + length], run)
        at += length
    return full.to(like.dtype)


def _extents(runs: list[Run], device: torch.device) -> tuple[Any, Any, int, int]:
    """Cumulative offsets of queries and of keys, (runs + 1,) int32, and the longest of each."""
    queries = [run.end - run.start for run in runs]
    keys = [run.before + length for run, length in zip(runs, queries, strict=True)]
    offsets = [
        torch.tensor([0, *lengths]).cumsum(0).to(device, torch.int32, non_blocking=True)
        for lengths in (queries, keys)
    ]
    return offsets[0], offsets[1], max(queries), max(keys)
