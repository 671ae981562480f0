"""A branch sees its prompt and itself, as it would alone: in every backend, there and back."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
import torch._dynamo.testing
from torch import Tensor

from graftlab.packing import attention_segments, attention_varlen, blocks
from graftlab.packing.attention import branched_mask, dense, segments, varlen
from graftlab.packing.runs import Run, find_runs
from slower import mostly_slow

LENGTHS = [37, 12, 20, 1, 30, 9, 4, 15, 6, 11]
PARENTS = torch.tensor([-1, 0, 0, -1, -1, 4, 5, 5, 4, 4], dtype=torch.int32)
BOUNDARIES = torch.tensor([0, *LENGTHS]).cumsum(0).to(torch.int32)
"""A pair, a plain document, and a tree: 4 goes on as 5, 8 and 9, and 5 as 6 and 7."""
WIDTH = 16
CASES = [(None, None), (9, None), (None, 2.0), (9, 2.0), (33, None)]
TIGHT = {torch.float64: 1e-12, torch.float32: 2e-6, torch.bfloat16: 1.3e-2}


def draw(dtype: torch.dtype, *, heads: int = 4, key_heads: int = 2, seed: int = 0) -> list[Tensor]:
    """Query, key, value and an upstream gradient, token-major."""
    generator = torch.Generator().manual_seed(seed)
    shapes = [(sum(LENGTHS), n, WIDTH) for n in (heads, key_heads, key_heads, heads)]
    tensors = [torch.randn(shape, generator=generator).to(dtype) for shape in shapes]
    return [*(x.requires_grad_() for x in tensors[:3]), tensors[3]]


def extents() -> list[tuple[int, int]]:
    return list(pairwise(BOUNDARIES.tolist()))


def path_of(segment: int) -> list[int]:
    """Segments from the root to this one."""
    path = [segment]
    while PARENTS[path[0]] >= 0:
        path.insert(0, int(PARENTS[path[0]]))
    return path


def alone(
    query: Tensor, key: Tensor, value: Tensor, *, window: int | None, softcap: float | None
) -> Tensor:
    """The reference, from the definition: each branch behind its own copy of what it continues."""
    outputs = []
    for segment, (start, end) in enumerate(extents()):
        index = torch.cat([torch.arange(*extents()[part]) for part in path_of(segment)])
        q, k, v = (x[index].transpose(0, 1) for x in (query, key, value))
        k, v = (x.repeat_interleave(q.shape[0] // x.shape[0], 0) for x in (k, v))
        scores = q @ k.mT * 0.3
        if softcap:
            scores = softcap * torch.tanh(scores / softcap)
        size = len(index)
        hidden = torch.ones(size, size).triu(1).bool()
        if window:
            hidden |= torch.ones(size, size).tril(-window).bool()
        whole = (scores.masked_fill(hidden, -torch.inf).softmax(-1) @ v).transpose(0, 1)
        outputs.append(whole[size - (end - start) :])
    return torch.cat(outputs)


def compare(attend: Callable[..., Tensor], dtype: torch.dtype, **options: Any) -> None:
    """Outputs and the three gradients against the reference in fp64, by relative L2 error."""
    heads = options.pop("heads", (4, 2))
    *inputs, grad = draw(dtype, heads=heads[0], key_heads=heads[1])
    out = attend(*inputs, BOUNDARIES, scale=0.3, parents=PARENTS, **options)
    assert out.dtype == dtype
    got = torch.autograd.grad(out, inputs, grad)
    exact = [x.detach().double().requires_grad_() for x in inputs]
    reference = alone(*exact, **options)
    wanted = torch.autograd.grad(reference, exact, grad.double())
    for have, want in zip((out, *got), (reference, *wanted), strict=True):
        assert have.dtype == dtype
        assert (have.double() - want).norm() / want.norm() < TIGHT[dtype]


def test_runs_are_neighbours_that_continue_each_other_and_the_rest_has_a_prefix() -> None:
    assert find_runs(BOUNDARIES, PARENTS) == [
        Run(0, 49),
        Run(49, 69, ((0, 37),)),
        Run(69, 70),
        Run(70, 113),
        Run(113, 128, ((70, 109),)),
        Run(128, 134, ((70, 100),)),
        Run(134, 145, ((70, 100),)),
    ]
    plain = find_runs(BOUNDARIES, None)
    assert plain == [Run(start, end) for start, end in extents()]


@pytest.mark.parametrize("dtype", list(TIGHT))
@pytest.mark.parametrize(("window", "softcap"), CASES)
@pytest.mark.parametrize("attend", [segments, dense])
def test_a_branch_is_what_it_is_alone(
    attend: Callable[..., Tensor],
    window: int | None,
    softcap: float | None,
    dtype: torch.dtype,
) -> None:
    compare(attend, dtype, window=window, softcap=softcap)


@pytest.mark.parametrize(("window", "softcap"), CASES)
def test_branches_of_many_blocks_and_on_other_devices(
    monkeypatch: pytest.MonkeyPatch, window: int | None, softcap: float | None
) -> None:
    """The path of MPS and CUDA, run here by taking the CPU kernel away."""
    monkeypatch.setattr(blocks, "BLOCK", 16)
    monkeypatch.setattr(attention_segments, "_flash_serves", lambda *_: False)
    for dtype in TIGHT:
        compare(segments, dtype, window=window, softcap=softcap)


@pytest.mark.parametrize("heads", [(2, 2), (6, 2), (6, 1)])
@pytest.mark.parametrize("attend", [segments, dense])
def test_grouped_heads(attend: Callable[..., Tensor], heads: tuple[int, int]) -> None:
    compare(attend, torch.float64, heads=heads, window=None, softcap=None)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("window", "softcap"), CASES)
@pytest.mark.parametrize("attend", [segments, dense])
@pytest.mark.parametrize("changed", [1, 2])
def test_a_sisters_content_changes_not_one_bit(
    attend: Callable[..., Tensor],
    window: int | None,
    softcap: float | None,
    dtype: torch.dtype,
    changed: int,
) -> None:
    *inputs, grad = draw(dtype)
    here = slice(*extents()[changed])
    others = [slice(0, 37), slice(*extents()[3 - changed]), slice(69, None)]

    def run(noise: float) -> list[Tensor]:
        moved = []
        for x in inputs:
            copy = x.detach().clone()
            copy[here] += noise
            moved.append(copy.requires_grad_())
        out = attend(*moved, BOUNDARIES, scale=0.3, window=window, softcap=softcap, parents=PARENTS)
        return [out, *torch.autograd.grad(out, moved, grad)]

    before, after = run(0.0), run(1.0)
    assert not torch.equal(before[0][here], after[0][here])
    for other in others:
        assert torch.equal(before[0][other], after[0][other])
    for one, two in zip(before[1:], after[1:], strict=True):
        for other in others[1:]:  # the prompt learns from both
            assert torch.equal(one[other], two[other])


@pytest.mark.parametrize("attend", [segments, dense])
def test_segments_that_continue_none_are_documents_bit_for_bit(
    attend: Callable[..., Tensor],
) -> None:
    *inputs, grad = draw(torch.bfloat16)
    found = []
    for parents in (None, torch.full_like(PARENTS, -1)):
        out = attend(*inputs, BOUNDARIES, scale=0.3, window=9, parents=parents)
        found.append([out, *torch.autograd.grad(out, inputs, grad)])
    for one, two in zip(*found, strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("window", "softcap"), [(0, 0.0), (9, 2.0)])
def test_the_operator_says_the_truth_to_the_compiler(
    dtype: torch.dtype, window: int, softcap: float
) -> None:
    *inputs, _ = draw(dtype)
    arguments = (BOUNDARIES, PARENTS, 0.3, window, softcap)
    torch.library.opcheck(attention_segments.segments_forward, (*inputs, *arguments))
    views = [
        x.detach().transpose(0, 1).contiguous().transpose(0, 1).requires_grad_() for x in inputs
    ]
    assert not views[0].is_contiguous()
    torch.library.opcheck(attention_segments.segments_forward, (*views, *arguments))


@pytest.mark.filterwarnings(r"ignore:The \.grad attribute of a Tensor")  # PyTorch's own looking
@pytest.mark.parametrize("attend", mostly_slow([segments, dense], segments))
def test_traced_gradients_equal_eager_ones(attend: Callable[..., Tensor]) -> None:
    def loss(
        query: Tensor, key: Tensor, value: Tensor, boundaries: Tensor, parents: Tensor
    ) -> Tensor:
        out = attend(query * 2, key, value, boundaries, scale=0.3, parents=parents)
        return (out.float() ** 2).sum()

    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    traced = torch.compile(loss, backend=counter, dynamic=True, fullgraph=attend is segments)
    for count in (10, 3):
        *inputs, _ = draw(torch.float32)
        inputs = [x.detach()[: BOUNDARIES[count]].clone().requires_grad_() for x in inputs]
        tables = BOUNDARIES[: count + 1].clone(), PARENTS[:count].clone()
        eager = torch.autograd.grad(loss(*inputs, *tables), inputs)
        for have, want in zip(
            torch.autograd.grad(traced(*inputs, *tables), inputs), eager, strict=True
        ):
            assert torch.equal(have, want)
    if attend is segments:
        assert counter.frame_count == 1


def test_the_dense_mask_shows_branches() -> None:
    boundaries = torch.tensor([0, 2, 4, 5], dtype=torch.int32)
    parents = torch.tensor([-1, 0, 0], dtype=torch.int32)
    assert branched_mask(boundaries, parents, None).int().tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 1, 1, 1, 0],
        [1, 1, 0, 0, 1],
    ]
    assert branched_mask(boundaries, parents, 2).int().tolist()[2:] == [
        [0, 1, 1, 0, 0],
        [0, 0, 1, 1, 0],
        [0, 1, 0, 0, 1],
    ]


def kernel(
    q: Tensor, k: Tensor, v: Tensor, offsets: tuple[Tensor, Tensor], scale: float, left: int
) -> list[tuple[Tensor, ...]]:
    """What varlen's kernel has of each run, by its definition: causal masks end at the last key.

    Its queries, keys and values, (H, R or T, D), and the probabilities (H, R, T).
    """
    found = []
    for (start, end), (first, last) in zip(*(pairwise(x.tolist()) for x in offsets), strict=True):
        one, keys, values = (
            x.transpose(0, 1) for x in (q[start:end], k[first:last], v[first:last])
        )
        keys, values = (x.repeat_interleave(len(one) // len(x), 0) for x in (keys, values))
        before = (last - first) - (end - start)
        away = torch.arange(last - first)[None] - torch.arange(before, last - first)[:, None]
        hidden = (away > 0) | ((away < -left) if left >= 0 else away > 0)
        scores = (one @ keys.mT * scale).masked_fill(hidden, -torch.inf)
        found.append((one, keys, values, scores.softmax(-1)))
    return found


def folded(x: Tensor, heads: int) -> Tensor:
    """(H, T, D) -> (T, K, D): summed over the query heads that share a key head."""
    return x.view(heads, -1, *x.shape[1:]).sum(1).transpose(0, 1)


@pytest.mark.parametrize("window", [None, 9, 33])
def test_varlen_is_asked_for_the_same_attention(
    monkeypatch: pytest.MonkeyPatch, window: int | None
) -> None:
    """The kernels need CUDA: stand-ins check their arguments and answer by their meaning."""
    calls = []

    def forward(
        q: Tensor, k: Tensor, v: Tensor, cu_q: Tensor, cu_k: Tensor, *rest: Any
    ) -> tuple[Tensor, Tensor, Tensor]:
        longest, longest_k, causal, scale, sides, gqa = rest
        assert (longest, longest_k) == (int(cu_q.diff().max()), int(cu_k.diff().max()))
        assert cu_q.dtype == cu_k.dtype == torch.int32
        assert (causal, gqa, sides[1]) == (window is None, True, 0)
        calls.append(len(k))
        parts = kernel(q, k, v, (cu_q, cu_k), scale, sides[0])
        out = torch.cat([(seen @ values).transpose(0, 1) for _, _, values, seen in parts])
        return out, torch.zeros(q.shape[1], q.shape[0]), torch.zeros(2, dtype=torch.uint64)

    def backward(*given: Any) -> tuple[Tensor, ...]:
        grad, q, k, v, _out, _lse, cu_q, cu_k, *_, scale, sides = given
        grads: list[list[Tensor]] = [[], [], []]
        parts = kernel(q, k, v, (cu_q, cu_k), scale, sides[0])
        for (one, keys, values, seen), piece in zip(
            parts, grad.split(cu_q.diff().tolist()), strict=True
        ):
            g = piece.transpose(0, 1)
            slope = g @ values.mT
            slope = seen * (slope - (slope * seen).sum(-1, keepdim=True)) * scale
            grads[0].append((slope @ keys).transpose(0, 1))
            grads[1].append(folded(slope.mT @ one, k.shape[1]))
            grads[2].append(folded(seen.mT @ g, k.shape[1]))
        return tuple(torch.cat(one) for one in grads)

    ops = torch.ops.torch_attn
    monkeypatch.setattr(ops, "_varlen_attn", forward)
    monkeypatch.setattr(ops, "_varlen_attn_backward", backward)
    compare(varlen, torch.float64, window=window, softcap=None)
    assert calls == [sum(LENGTHS) + 37 + 39 + 30 + 30]


def test_varlens_operator_has_the_shapes_that_it_says() -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode() as mode:
        *inputs, grad = (mode.from_tensor(x.detach()) for x in draw(torch.bfloat16))
        tables = [mode.from_tensor(x) for x in (BOUNDARIES, PARENTS)]
        out, lse = attention_varlen.varlen_forward(*inputs, *tables, 0.3, 0)
        assert (out.shape, lse.shape) == (inputs[0].shape, (4, sum(LENGTHS)))
        grads = attention_varlen.varlen_backward(grad, *inputs, out, lse, *tables, 0.3, 0)
        assert [x.shape for x in grads] == [x.shape for x in inputs]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="varlen's kernel needs CUDA")
@pytest.mark.parametrize("window", [None, 9, 33])
def test_varlen_on_cuda_equals_alone(window: int | None) -> None:
    *inputs, grad = (x.detach().cuda() for x in draw(torch.bfloat16))
    leaves = [x.requires_grad_() for x in inputs]
    out = varlen(*leaves, BOUNDARIES, scale=0.3, window=window, parents=PARENTS)
    got = torch.autograd.grad(out, leaves, grad)
    exact = [x.detach().double().cpu().requires_grad_() for x in leaves]
    reference = alone(*exact, window=window, softcap=None)
    wanted = torch.autograd.grad(reference, exact, grad.double().cpu())
    for have, want in zip((out, *got), (reference, *wanted), strict=True):
        assert (have.double().cpu() - want).norm() / want.norm() < TIGHT[torch.bfloat16]
