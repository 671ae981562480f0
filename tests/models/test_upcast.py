"""16-bit products in fp32: exact but for one rounding, in every direction, thread and form."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from graftlab.adapters.attach import attach
from graftlab.adapters.lora import Lora
from graftlab.models import arithmetic, upcast
from graftlab.models.base import Base
from graftlab.models.compile import compile_layers, find_obstacle
from graftlab.packing import attention_segments
from graftlab.training import precision as precisions
from graftlab.training.device import matrix_peak
from graftlab.training.precision import Precision, resolve
from miniatures import flat_batch

CPU = torch.device("cpu")
BF16, FP16 = torch.bfloat16, torch.float16
aten = torch.ops.aten


@pytest.fixture
def upcasting() -> Iterator[None]:
    """Replaced kernels for one test, whatever the processor; installed again, they are no other."""
    installed = bool(upcast._libraries)
    upcast.upcast_products()
    upcast.upcast_products()
    yield
    if not installed:
        for library in upcast._libraries:
            library._destroy()
        upcast._libraries.clear()


def whole(*shape: int, seed: int, dtype: torch.dtype = BF16) -> Tensor:
    """Whole numbers, so that sums are exact in fp32 in any order, and beyond 256 not in bf16."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-9, 10, shape, generator=generator).to(dtype)


def exact(compute: Callable[..., Tensor], *operands: Tensor, dtype: torch.dtype = BF16) -> Tensor:
    """The same in fp64, rounded once: not what rounding twice or summing in bf16 gives."""
    wide = compute(*(x.double() for x in operands))
    rounded = wide.to(dtype)
    assert (rounded.double() != wide).any(), "nothing was rounded: the case shows nothing"
    return rounded


@pytest.mark.parametrize("dtype", [BF16, FP16])
@pytest.mark.parametrize("rows", [1, 3, 40])
@pytest.mark.parametrize("piece", [upcast.PIECE, 1000])
@pytest.mark.parametrize("transposed", [True, False])
def test_a_product_is_exact_but_for_one_rounding(
    upcasting: None,
    monkeypatch: pytest.MonkeyPatch,
    dtype: torch.dtype,
    rows: int,
    piece: int,
    transposed: bool,
) -> None:
    """Forward (a transposed weight) and backward (the weight itself), whole and by pieces."""
    monkeypatch.setattr(upcast, "PIECE", piece)
    scale = 1 if dtype == BF16 else 9  # beyond 2048, what fp16 holds exactly
    left = whole(rows, 300, seed=0, dtype=dtype) * scale
    weight = whole(70, 300, seed=1, dtype=dtype) if transposed else whole(300, 70, seed=1)
    right = (weight.T if transposed else weight).to(dtype)
    base, bias = whole(rows, 70, seed=2, dtype=dtype), whole(70, seed=3, dtype=dtype)
    product = exact(torch.mm, left, right, dtype=dtype)
    assert torch.equal(torch.mm(left, right), product)
    out = torch.empty(rows, 70, dtype=dtype)
    assert torch.mm(left, right, out=out) is out
    assert torch.equal(out, product)
    assert torch.equal(torch.mm(left, right, out=torch.empty(0, dtype=dtype)), product)

    added = exact(lambda a, b, c: 2 * c + 3 * (a @ b), left, right, base, dtype=dtype)
    assert torch.equal(torch.addmm(base, left, right, beta=2, alpha=3), added)
    assert torch.equal(torch.addmm(base, left, right, beta=2, alpha=3, out=out), added)
    assert torch.equal(base.clone().addmm_(left, right, beta=2, alpha=3), added)
    biased = exact(lambda a, b, c: a @ b + c, left, right, bias, dtype=dtype)
    assert torch.equal(torch.addmm(bias, left, right), biased)
    lost = torch.full_like(base, float("nan"))
    assert torch.equal(torch.addmm(lost, left, right, beta=0), product)


def test_batches_are_exact_but_for_one_rounding(upcasting: None) -> None:
    left, right, base = whole(2, 5, 300, seed=0), whole(2, 300, 7, seed=1), whole(2, 5, 7, seed=2)
    product, added = (
        exact(torch.bmm, left, right),
        exact(lambda a, b, c: 2 * c + a @ b, left, right, base),
    )
    out = torch.empty(2, 5, 7, dtype=BF16)
    assert torch.equal(torch.bmm(left, right), product)
    assert torch.equal(torch.bmm(left, right, out=out), product)
    assert torch.equal(torch.baddbmm(base, left, right, beta=2), added)
    assert torch.equal(torch.baddbmm(base, left, right, beta=2, out=out), added)
    assert torch.equal(base.clone().baddbmm_(left, right, beta=2), added)
    assert torch.bmm(left[:0], right[:0]).shape == (0, 5, 7)


@pytest.mark.parametrize("batch", [1, 4])
def test_a_weight_expanded_over_a_batch_is_widened_once(
    upcasting: None, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    """`nn.Linear` makes one of a head's weight for the last positions of prompts."""
    states, weight = whole(batch, 9, 300, seed=0)[:, -3:], whole(70, 300, seed=1)
    product = functional.linear(states.double(), weight.double()).to(BF16)
    widened: list[int] = []
    real = torch.Tensor.float

    def watched(self: Tensor) -> Tensor:
        widened.append(self.numel())
        return real(self)

    with monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, "float", watched)
        patch.setattr(torch.Tensor, "to", lambda *_: pytest.fail("of another way"))
        found = functional.linear(states, weight)
        out = torch.bmm(states, weight.T.expand(batch, 300, 70), out=torch.empty_like(found))
    assert torch.equal(found, product)
    assert torch.equal(out, product)
    assert sum(widened) <= 2 * (states.numel() + weight.numel())


def convolved(x: Tensor, weight: Tensor) -> Tensor:
    return functional.conv1d(x, weight, groups=len(weight), padding=3)


def attended(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)


def segmented(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    boundaries = torch.tensor([0, 20, 33], dtype=torch.int32)
    flat = [x[0].transpose(0, 1) for x in (q, k, v)]
    return attention_segments.attend(*flat, boundaries, scale=0.25)


def windowed(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    boundaries = torch.tensor([0, 20, 33], dtype=torch.int32)
    flat = [x[0].transpose(0, 1) for x in (q, k, v)]
    return attention_segments.attend(*flat, boundaries, scale=0.25, window=5, softcap=20.0)


HEADS = [(1, 4, 33, 16), (1, 2, 33, 16), (1, 2, 33, 16)]


@pytest.mark.parametrize(
    ("compute", "shapes"),
    [
        (functional.linear, [(2, 9, 40), (30, 40), (30,)]),
        (torch.matmul, [(3, 9, 40), (3, 40, 8)]),
        (convolved, [(1, 8, 30), (8, 1, 4)]),
        (attended, HEADS),
        (segmented, HEADS),
        (windowed, HEADS),
    ],
)
@pytest.mark.parametrize("dtype", [BF16, FP16])
def test_both_directions_are_those_of_fp32_rounded_once(
    upcasting: None,
    compute: Callable[..., Tensor],
    shapes: list[tuple[int, ...]],
    dtype: torch.dtype,
) -> None:
    generator = torch.Generator().manual_seed(0)
    operands = [torch.randn(shape, generator=generator).to(dtype) for shape in shapes]

    def both(*given: Tensor) -> list[Tensor]:
        leaves = [x.requires_grad_() for x in given]
        out = compute(*leaves)
        # Attention's backward takes the output as it was kept: rounded.
        gradient = torch.linspace(-1, 1, out.numel()).view_as(out).to(dtype).to(out.dtype)
        return [out.detach(), *torch.autograd.grad(out, leaves, gradient)]

    found, wanted = both(*operands), both(*(x.detach().float() for x in operands))
    for mine, theirs in zip(found, wanted, strict=True):
        assert mine.dtype == dtype
        step = torch.finfo(dtype).eps  # between neighbours, relative
        torch.testing.assert_close(mine, theirs.to(dtype), rtol=step, atol=2 * step)
    assert torch.equal(found[0], wanted[0].to(dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_wider_products_are_as_before(dtype: torch.dtype, request: pytest.FixtureRequest) -> None:
    left, right = torch.randn(9, 40, dtype=dtype), torch.randn(40, 8, dtype=dtype)

    def all_forms() -> list[Tensor]:
        return [
            torch.mm(left, right),
            torch.mm(left, right, out=torch.empty(9, 8, dtype=dtype)),
            torch.addmm(left[:, :8], left, right, beta=0.5, alpha=2),
            left[:, :8].clone().addmm_(left, right),
            torch.bmm(left[None], right[None]),
            functional.conv1d(left[None], left[None, :1, :3].expand(9, 9, 3)),
            functional.scaled_dot_product_attention(*(left.expand(1, 1, 9, 40),) * 3),
        ]

    before = all_forms()
    request.getfixturevalue("upcasting")
    assert all(map(torch.equal, all_forms(), before))


def test_operands_of_two_dtypes_are_refused_as_before(upcasting: None) -> None:
    with pytest.raises(RuntimeError, match="dtype"):
        torch.mm(torch.ones(3, 3, dtype=BF16), torch.ones(3, 3))


def test_other_threads_and_modes_multiply_alike(upcasting: None) -> None:
    left, right = whole(5, 300, seed=0), whole(300, 7, seed=1)
    product, found = exact(torch.mm, left, right), list[Tensor]()

    def multiply() -> None:
        with torch.inference_mode():
            found.append(torch.mm(left, right))
        with torch.autocast("cpu", BF16):
            found.append(functional.linear(left.float(), right.float().T))

    thread = threading.Thread(target=multiply)
    thread.start()
    thread.join()
    assert len(found) == 2
    assert all(torch.equal(x, product) for x in found)


def test_backward_keeps_no_widened_operand(upcasting: None) -> None:
    """What autograd saves of a linear layer and of attention: their 16-bit inputs and outputs."""
    x = torch.randn(1, 2, 33, 16).to(BF16).requires_grad_()
    weight = torch.randn(16, 16).to(BF16).requires_grad_()
    saved: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        saved.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        y = functional.linear(x, weight)
        segmented(*[functional.scaled_dot_product_attention(y, y, y)] * 3)
    assert len(saved) > 6
    wide = [tensor for tensor in saved if tensor.dtype == torch.float32]
    assert wide, "the log-sum-exps"
    assert all(tensor.numel() == 2 * 33 for tensor in wide)


def gradients(base: Base, name: str) -> Tensor:
    """All adapter gradients of one packed row, in one row."""
    precision = resolve(Precision(name=name), CPU)
    adapter = attach(base, Lora(rank=4, init="gaussian"), seed=0, dtype=precision.adapter_dtype)
    generator = torch.Generator().manual_seed(1)
    parameters = [parameter for _, parameter in adapter.named_parameters()]
    with torch.no_grad():  # B starts at zero, where half of the gradients would be zero too
        for parameter in parameters:
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    batch = flat_batch([40, 30, 25], vocab_size=base.vocab_size)
    with precision.autocast():
        loss = base.logits(base.hidden(batch)[0]).float().logsumexp(-1).square().mean()
    return torch.cat([g.flatten().float() for g in torch.autograd.grad(loss, parameters)])


@pytest.fixture
def no_units(monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor that multiplies no bf16."""
    monkeypatch.setattr(arithmetic, "has_bf16", lambda device: (False, "the processor"))


STORED = {"fp32": torch.float32, "bf16-mixed": BF16, "bf16": BF16}


@pytest.mark.parametrize("kind", ["qwen2", "gemma2"])
@pytest.mark.parametrize("name", ["bf16-mixed", "bf16"])
def test_a_packed_step_is_that_of_fp32_within_bf16(
    upcasting: None, no_units: None, make_base: Callable[..., Base], kind: str, name: str
) -> None:
    found, wanted = (gradients(make_base(kind, STORED[each]), each) for each in (name, "fp32"))
    distance = float((found - wanted).norm() / wanted.norm())
    assert 1e-4 < distance < 3e-2


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # Inductor's imports have warnings of their own
@pytest.mark.skipif(find_obstacle(CPU) is not None, reason="layers cannot be compiled here")
def test_compiled_layers_multiply_alike(
    upcasting: None, make_base: Callable[..., Base], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Inductor's own calls of the products are served too, seen by what they are asked."""
    served: list[tuple[int, ...]] = []
    real = upcast._add_product

    def watched(*args: Any, **kwargs: Any) -> Tensor:
        served.append(tuple(args[2].shape))
        return real(*args, **kwargs)

    monkeypatch.setattr(upcast, "_add_product", watched)  # `_product` calls it by its name
    eager = gradients(make_base("qwen2", BF16), "bf16-mixed")
    in_eager, base = len(served), make_base("qwen2", BF16)
    served.clear()
    torch._dynamo.reset()
    compile_layers(base)
    compiled = gradients(base, "bf16-mixed")
    assert len(served) > in_eager / 2
    assert float((compiled - eager).norm() / eager.norm()) < 2e-2


def test_a_run_in_bf16_installs_them_where_units_are_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    installed: list[bool] = []
    monkeypatch.setattr(precisions, "upcast_products", lambda: installed.append(True))
    for name in ("bf16-mixed", "bf16", "fp32", "auto"):
        for has in (True, False):
            monkeypatch.setattr(arithmetic, "has_bf16", lambda device, has=has: (has, "it"))
            monkeypatch.setattr(precisions, "has_bf16", arithmetic.has_bf16)
            installed.clear()
            resolved = resolve(Precision(name=name), CPU)
            assert bool(installed) == (name in ("bf16-mixed", "bf16") and not has)
            assert bool(installed) == ("products in fp32" in resolved.reason)
            assert not resolve(Precision(name=name), torch.device("mps")).reason.count("fp32, as")


def test_the_peak_is_that_of_what_multiplies(
    no_units: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[torch.dtype] = []
    real = torch.Tensor.to
    monkeypatch.setattr(
        torch.Tensor, "to", lambda self, dtype: (asked.append(dtype), real(self, dtype))[1]
    )
    matrix_peak.__wrapped__(CPU, BF16)
    assert set(asked) == {torch.float32}


@pytest.mark.skipif(
    torch.cpu.get_capabilities()["architecture"] != "x86_64"
    or not torch.backends.mkldnn.is_available(),
    reason="ONEDNN_MAX_CPU_ISA masks units of x86 processors, in builds with oneDNN",
)
def test_a_masked_processor_upcasts_and_says_nothing_else() -> None:
    program = (
        "import torch; from graftlab.models import upcast\n"
        "from graftlab.training.precision import Precision, resolve\n"
        "assert not upcast._libraries\n"
        "print(resolve(Precision(name='bf16-mixed'), torch.device('cpu')).reason)\n"
        "assert upcast._libraries\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "always", "-c", program],
        capture_output=True,
        text=True,
        env={**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"},
        check=True,
    )
    reason = "as configured; products in fp32, as the processor has no bf16 arithmetic"
    assert done.stdout.strip() == reason
    assert "Overriding" not in done.stderr
