"""Packed attention equals each document alone, in every backend, forward and backward."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from graftlab.errors import ConfigError, ModelError
from graftlab.packing import attention_segments, blocks
from graftlab.packing.attention import (
    ATTENTION,
    choose_backend,
    dense,
    dense_mask,
    packed_attention,
    register,
    segments,
    varlen,
)

LENGTHS = [37, 1, 70, 25]
BOUNDARIES = torch.tensor([0, *LENGTHS]).cumsum(0).to(torch.int32)
SECOND = slice(38, 108)  # the document compared when another one changes
WIDTH = 16
CASES = [(None, None), (9, None), (None, 2.0), (9, 2.0)]
TIGHT = {torch.float64: 1e-12, torch.float32: 2e-6, torch.bfloat16: 1.2e-2}


def draw(
    dtype: torch.dtype, *, heads: int = 4, key_heads: int = 2, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Query, key, value and an upstream gradient, token-major."""
    generator = torch.Generator().manual_seed(seed)
    shapes = [(sum(LENGTHS), n, WIDTH) for n in (heads, key_heads, key_heads, heads)]
    tensors = [torch.randn(shape, generator=generator).to(dtype) for shape in shapes]
    query, key, value, grad = tensors
    return query.requires_grad_(), key.requires_grad_(), value.requires_grad_(), grad


def alone(
    query: Tensor, key: Tensor, value: Tensor, *, window: int | None, softcap: float | None
) -> Tensor:
    """The reference: one document after the other, from the definition."""
    outputs = []
    for start, end in pairwise(BOUNDARIES.tolist()):
        q, k, v = (x[start:end].transpose(0, 1) for x in (query, key, value))
        k, v = (x.repeat_interleave(q.shape[0] // x.shape[0], 0) for x in (k, v))
        scores = q @ k.mT * 0.3
        if softcap:
            scores = softcap * torch.tanh(scores / softcap)
        hidden = torch.ones(end - start, end - start).triu(1).bool()
        if window:
            hidden |= torch.ones(end - start, end - start).tril(-window).bool()
        outputs.append((scores.masked_fill(hidden, -torch.inf).softmax(-1) @ v).transpose(0, 1))
    return torch.cat(outputs)


def compare(attend: Callable[..., Tensor], dtype: torch.dtype, **options: Any) -> None:
    """Outputs and the three gradients against the reference in fp64, by relative L2 error."""
    *inputs, grad = draw(dtype)
    out = attend(*inputs, BOUNDARIES, scale=0.3, **options)
    assert out.dtype == dtype
    got = torch.autograd.grad(out, inputs, grad)
    exact = [x.detach().double().requires_grad_() for x in inputs]
    reference = alone(*exact, **options)
    wanted = torch.autograd.grad(reference, exact, grad.double())
    for have, want in zip((out, *got), (reference, *wanted), strict=True):
        assert have.dtype == dtype
        assert (have.double() - want).norm() / want.norm() < TIGHT[dtype]


@pytest.mark.parametrize(("window", "softcap"), CASES)
@pytest.mark.parametrize("dtype", TIGHT)
@pytest.mark.parametrize("attend", [segments, dense])
def test_packed_equals_alone(
    attend: Callable[..., Tensor],
    dtype: torch.dtype,
    window: int | None,
    softcap: float | None,
) -> None:
    compare(attend, dtype, window=window, softcap=softcap)


@pytest.mark.parametrize(("window", "softcap"), CASES)
def test_documents_of_many_blocks(
    monkeypatch: pytest.MonkeyPatch, window: int | None, softcap: float | None
) -> None:
    monkeypatch.setattr(blocks, "BLOCK", 16)
    assert len(blocks.query_blocks(max(LENGTHS), heads=4, keys=max(LENGTHS))) == 5
    compare(segments, torch.float64, window=window, softcap=softcap)


def test_long_documents_get_shorter_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "MAX_SCORES", 4 * 70 * 20)
    found = blocks.query_blocks(70, heads=4, keys=70)
    assert found == [(0, 20), (20, 40), (40, 60), (60, 70)]


@pytest.mark.parametrize(("window", "softcap"), CASES)
def test_other_devices_take_explicit_blocks(
    monkeypatch: pytest.MonkeyPatch, window: int | None, softcap: float | None
) -> None:
    """The path of MPS and CUDA, run here by taking the CPU kernel away."""
    monkeypatch.setattr(attention_segments, "_flash_serves", lambda *_: False)
    for dtype in TIGHT:
        compare(segments, dtype, window=window, softcap=softcap)


@pytest.mark.parametrize("heads", [(2, 2), (6, 2), (6, 1)])
def test_grouped_heads(heads: tuple[int, int]) -> None:
    query, key, value, grad = draw(torch.float64, heads=heads[0], key_heads=heads[1])
    out = segments(query, key, value, BOUNDARIES, scale=0.3)
    got = torch.autograd.grad(out, (query, key, value), grad)
    reference = alone(query, key, value, window=None, softcap=None)
    wanted = torch.autograd.grad(reference, (query, key, value), grad)
    for have, want in zip((out, *got), (reference, *wanted), strict=True):
        torch.testing.assert_close(have, want)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("window", "softcap"), CASES)
@pytest.mark.parametrize("attend", [segments, dense])
def test_another_documents_content_changes_not_one_bit(
    attend: Callable[..., Tensor],
    window: int | None,
    softcap: float | None,
    dtype: torch.dtype,
) -> None:
    *inputs, grad = draw(dtype)

    def run(noise: float) -> list[Tensor]:
        changed = []
        for x in inputs:
            copy = x.detach().clone()
            copy[: SECOND.start] += noise
            copy[SECOND.stop :] -= noise
            changed.append(copy.requires_grad_())
        out = attend(*changed, BOUNDARIES, scale=0.3, window=window, softcap=softcap)
        return [out, *torch.autograd.grad(out, changed, grad)]

    for before, after in zip(run(0.0), run(1.0), strict=True):
        assert not torch.equal(before, after)
        assert torch.equal(before[SECOND], after[SECOND])


def test_half_precision_gradients_are_as_good_as_stock_attention() -> None:
    """Large scores are where rounding them to bf16 would hurt; the shift inside prevents it."""
    generator = torch.Generator().manual_seed(3)
    q, k, v, grad = (torch.randn(1, 2, 300, 64, generator=generator) for _ in range(4))
    inputs = [(x * s).bfloat16() for x, s in ((q, 3.0), (k, 3.0), (v, 1.0))]

    def gradients(dtype: torch.dtype, attend: Callable[..., Tensor]) -> list[Tensor]:
        leaves = [x.to(dtype).requires_grad_() for x in inputs]
        return list(torch.autograd.grad(attend(*leaves), leaves, grad.to(dtype)))

    def stock(*x: Tensor) -> Tensor:
        return functional.scaled_dot_product_attention(*x, is_causal=True)

    def ours(*x: Tensor) -> Tensor:
        flat = [t[0].transpose(0, 1) for t in x]
        return segments(*flat, torch.tensor([0, 300]).int(), scale=0.125).transpose(0, 1)[None]

    exact = gradients(torch.float64, stock)
    assert max(float((q[0] @ k[0].mT).abs().max()) * 9 * 0.125, 0) > 20

    def error(found: list[Tensor]) -> float:
        return max(
            float((x.double() - y).norm() / y.norm()) for x, y in zip(found, exact, strict=True)
        )

    half = torch.bfloat16
    assert error(gradients(half, ours)) < 1.2 * error(gradients(half, stock))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("window", "softcap"), [(0, 0.0), (9, 2.0)])
def test_the_operator_says_the_truth_to_the_compiler(
    dtype: torch.dtype, window: int, softcap: float
) -> None:
    """Shapes, strides and dtypes of the fake implementations are the real ones, backward too."""
    query, key, value, _ = draw(dtype)
    arguments = (query, key, value, BOUNDARIES, None, 0.3, window, softcap)
    torch.library.opcheck(attention_segments.segments_forward, arguments)
    views = [
        x.detach().transpose(0, 1).contiguous().transpose(0, 1).requires_grad_()
        for x in (query, key, value)
    ]
    assert not views[0].is_contiguous()
    torch.library.opcheck(attention_segments.segments_forward, (*views, *arguments[3:]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_traced_gradients_equal_eager_ones(dtype: torch.dtype) -> None:
    def loss(query: Tensor, key: Tensor, value: Tensor, boundaries: Tensor) -> Tensor:
        out = segments(query * 2, key, value, boundaries, scale=0.3)
        return (out.float() ** 2).sum()

    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    traced = torch.compile(loss, backend=counter, dynamic=True, fullgraph=True)
    for boundaries in (BOUNDARIES, BOUNDARIES[[0, 2, 4]]):
        *inputs, _ = draw(dtype)
        eager = torch.autograd.grad(loss(*inputs, boundaries), inputs)
        for have, want in zip(
            torch.autograd.grad(traced(*inputs, boundaries), inputs), eager, strict=True
        ):
            assert torch.equal(have, want)
    assert counter.frame_count == 1


def call(*tensors: Tensor, **kwargs: Any) -> Tensor:
    """`packed_attention` as transformers calls it: (1, heads, N, D)."""
    q, k, v = (x.transpose(0, 1)[None] for x in tensors)
    out, weights = packed_attention(torch.nn.Module(), q, k, v, None, **kwargs)
    assert weights is None
    return out


def test_the_registered_function_speaks_transformers() -> None:
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    register()
    register()
    assert ALL_ATTENTION_FUNCTIONS[ATTENTION] is packed_attention
    assert "sdpa" not in ATTENTION
    assert "flex_attention" not in ATTENTION
    query, key, value, _ = draw(torch.float32)
    out = call(query, key, value, boundaries=BOUNDARIES, scaling=0.3, dropout=0.5)
    assert out.shape == (1, sum(LENGTHS), 4, WIDTH)
    torch.testing.assert_close(out[0], alone(query, key, value, window=None, softcap=None))
    other = call(query, key, value, boundaries=BOUNDARIES, scaling=0.3, packed_backend="dense")
    torch.testing.assert_close(out, other)


def test_queries_widened_by_rotary_embeddings_are_computed_in_the_dtype_of_values() -> None:
    query, key, value, _ = draw(torch.float32)
    for backend in ("segments", "dense"):
        out = call(query, key, value.bfloat16(), boundaries=BOUNDARIES, packed_backend=backend)
        assert out.dtype == torch.bfloat16


def test_autocast_does_not_reach_into_the_operator() -> None:
    query, key, value, grad = draw(torch.float32)
    plain = segments(query, key, value, BOUNDARIES, scale=0.3, window=9)
    want = torch.autograd.grad(plain, query, grad)[0]
    with torch.autocast("cpu", torch.bfloat16):
        cast = segments(query, key, value, BOUNDARIES, scale=0.3, window=9)
        have = torch.autograd.grad(cast, query, grad)[0]
    assert torch.equal(plain, cast)
    assert torch.equal(want, have)


def test_misuse_is_refused_instead_of_mixing_documents() -> None:
    query, key, value, _ = draw(torch.float32)
    with pytest.raises(ModelError, match=r"not told which documents.*model\.attention=own"):
        call(query, key, value)
    q, k, v = (x.transpose(0, 1)[None] for x in (query, key, value))
    mask = dense_mask(BOUNDARIES, sum(LENGTHS), None)
    with pytest.raises(ModelError, match="has a mask of its own"):
        packed_attention(torch.nn.Module(), q, k, v, mask, boundaries=BOUNDARIES)
    with pytest.raises(ModelError, match="sinks"):
        call(query, key, value, boundaries=BOUNDARIES, s_aux=torch.zeros(4))


def test_dense_mask_shows_documents_causality_and_window() -> None:
    mask = dense_mask(torch.tensor([0, 3, 5], dtype=torch.int32), 5, 2)
    assert mask.int().tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [0, 1, 1, 0, 0],
        [0, 0, 0, 1, 0],
        [0, 0, 0, 1, 1],
    ]


@pytest.mark.parametrize(("window", "expected"), [(None, (-1, 0)), (9, (8, 0))])
def test_varlen_is_asked_for_the_same_attention(
    monkeypatch: pytest.MonkeyPatch, window: int | None, expected: tuple[int, int]
) -> None:
    """The kernel needs CUDA; a stand-in checks its arguments and answers by their meaning."""
    import torch.nn.attention.varlen as module

    def stand_in(q: Tensor, k: Tensor, v: Tensor, *extents: Any, **options: Any) -> Tensor:
        offsets, offsets_k, longest, longest_k = extents
        assert torch.equal(offsets, offsets_k)
        assert longest == longest_k == sum(LENGTHS)
        assert options["window_size"] == expected
        assert options["enable_gqa"]
        left = options["window_size"][0]
        seen = None if left < 0 else left + 1
        return dense(q, k, v, offsets, scale=options["scale"], window=seen)

    monkeypatch.setattr(module, "varlen_attn", stand_in)
    query, key, value, _ = draw(torch.float32)
    out = varlen(query, key, value, BOUNDARIES, scale=0.3, window=window)
    torch.testing.assert_close(out, alone(query, key, value, window=window, softcap=None))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="varlen's kernel needs CUDA")
@pytest.mark.parametrize("window", [None, 9])
def test_varlen_on_cuda_equals_alone(window: int | None) -> None:
    *inputs, grad = (x.detach().cuda() for x in draw(torch.bfloat16))
    leaves = [x.requires_grad_() for x in inputs]
    out = varlen(*leaves, BOUNDARIES, scale=0.3, window=window)
    got = torch.autograd.grad(out, leaves, grad)
    exact = [x.detach().double().cpu().requires_grad_() for x in leaves]
    reference = alone(*exact, window=window, softcap=None)
    wanted = torch.autograd.grad(reference, exact, grad.double().cpu())
    for have, want in zip((out, *got), (reference, *wanted), strict=True):
        assert (have.double().cpu() - want).norm() / want.norm() < TIGHT[torch.bfloat16]


def config(**fields: Any) -> SimpleNamespace:
    return SimpleNamespace(**{"hidden_size": 64, "num_attention_heads": 4, **fields})


@pytest.mark.parametrize(
    ("attention", "device", "dtype", "fields", "backend", "reason"),
    [
        ("auto", "cpu", torch.bfloat16, {}, "segments", "per document"),
        ("auto", "mps", torch.float16, {}, "segments", "per document"),
        ("auto", "cuda", torch.bfloat16, {}, "varlen", "flash"),
        ("auto", "cuda", torch.float32, {}, "segments", "bf16 or fp16"),
        ("auto", "cuda", torch.bfloat16, {"attn_logit_softcapping": 50.0}, "segments", "softcap"),
        ("auto", "cuda", torch.bfloat16, {"head_dim": 512}, "segments", "width 512"),
        ("auto", "cuda", torch.bfloat16, {"v_head_dim": 8}, "dense", "width"),
        ("auto", "cpu", torch.float32, {"v_head_dim": 8}, "dense", "width"),
        ("dense", "cpu", torch.float32, {}, "dense", "configured"),
        ("segments", "cuda", torch.bfloat16, {}, "segments", "configured"),
    ],
)
def test_the_backend_is_chosen_with_a_reason(
    monkeypatch: pytest.MonkeyPatch,
    attention: str,
    device: str,
    dtype: torch.dtype,
    fields: dict[str, Any],
    backend: str,
    reason: str,
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    chosen, why = choose_backend(attention, device, dtype, config(**fields))
    assert chosen == backend
    assert reason in why


def test_old_gpus_take_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 5))
    chosen, why = choose_backend("auto", "cuda", torch.float16, config())
    assert chosen == "segments"
    assert "8.0" in why


def test_what_cannot_be_served_is_refused() -> None:
    with pytest.raises(ConfigError, match="did you mean|Did you mean"):
        choose_backend("segment", "cpu", torch.float32, config())
    with pytest.raises(ModelError, match="CUDA"):
        choose_backend("varlen", "cpu", torch.float32, config())
    chunked = config(layer_types=["chunked_attention", "full_attention"])
    with pytest.raises(ModelError, match="chunked_attention"):
        choose_backend("auto", "cpu", torch.float32, chunked)
    hybrid = config(layer_types=["linear_attention", "full_attention"])
    assert choose_backend("auto", "cpu", torch.float32, hybrid)[0] == "segments"


@pytest.mark.parametrize(
    "kind",
    ["qwen2", "qwen3", "llama", "mistral", "gemma2", "gemma3", "phi3", "granite", "cohere"],
)
def test_every_architecture_hands_the_documents_through(kind: str) -> None:
    """Boundaries, window, softcap and scale arrive: packed equals alone under stock attention."""
    from miniatures import build, flat_batch, single_documents

    register()
    model = build(kind)
    batch = flat_batch([40, 7, 33])

    def hidden(part: Any, **options: Any) -> Tensor:
        found = model.model(part.input_ids, position_ids=part.positions, use_cache=False, **options)
        return found.last_hidden_state

    with torch.no_grad():
        model.set_attn_implementation("eager")
        reference = torch.cat([hidden(part) for part in single_documents(batch)], 1)
        model.set_attn_implementation(ATTENTION)
        for backend in ("segments", "dense"):
            packed = hidden(batch, boundaries=batch.boundaries, packed_backend=backend)
            torch.testing.assert_close(packed, reference, atol=2e-4, rtol=2e-4)
        joined = hidden(batch, boundaries=batch.boundaries[[0, -1]])
    assert (joined - reference).abs().max() > 1e-2
