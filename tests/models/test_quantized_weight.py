"""A weight kept as codes multiplies like the matrix it stands for, and only codes are kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn
from torch.nn import functional

from graftlab.adapters.linear import _Adapted
from graftlab.models.quantization.weight import QuantizedWeight, Scheme

OUT, IN = 24, 16
DTYPES = [torch.float32, torch.bfloat16]


@dataclass(frozen=True)
class Rows(Scheme):
    """Whole numbers times a scale for each row."""

    def widen(self, parts: Sequence[Tensor], shape: torch.Size, dtype: torch.dtype) -> Tensor:
        codes, scales = parts
        assert codes.shape == shape
        return (codes.float() * scales[:, None]).to(dtype)


def weight(dtype: torch.dtype) -> tuple[QuantizedWeight, Tensor]:
    """One weight, and the matrix it stands for."""
    generator = torch.Generator().manual_seed(3)
    codes = torch.randint(-127, 128, (OUT, IN), dtype=torch.int8, generator=generator)
    scales = torch.rand(OUT, generator=generator) / 127
    return QuantizedWeight(Rows(), [codes, scales], (OUT, IN), dtype), (
        codes.float() * scales[:, None]
    ).to(dtype)


def linear(dtype: torch.dtype, *, codes: bool) -> nn.Linear:
    layer = nn.Linear(IN, OUT, bias=False)
    layer.weight = nn.Parameter(weight(dtype)[0 if codes else 1], requires_grad=False)
    return layer


def inputs(dtype: torch.dtype) -> Tensor:
    torch.manual_seed(5)
    return torch.randn(2, 7, IN, dtype=dtype, requires_grad=True)


def passed(layer: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """Output and input gradient of one pass."""
    y = layer(x)
    y.float().square().sum().backward()
    assert x.grad is not None
    return y.detach(), x.grad


@pytest.mark.parametrize("dtype", DTYPES)
def test_products_and_gradients_are_those_of_the_matrix(dtype: torch.dtype) -> None:
    found = passed(linear(dtype, codes=True), inputs(dtype))
    wanted = passed(linear(dtype, codes=False), inputs(dtype))
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_kept_for_the_backward_pass_is_the_codes(dtype: torch.dtype) -> None:
    kept: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    layer = linear(dtype, codes=True)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        layer(inputs(dtype))
    stored = layer.weight.data
    assert isinstance(stored, QuantizedWeight)
    assert [type(tensor) for tensor in kept] == [QuantizedWeight]
    own = kept[0]
    assert isinstance(own, QuantizedWeight)
    assert own.parts[0].data_ptr() == stored.parts[0].data_ptr()


def test_it_looks_like_the_matrix() -> None:
    codes, wide = weight(torch.float32)
    assert codes.shape == wide.shape
    assert codes.numel() == wide.numel()
    assert codes.dtype == torch.float32
    assert codes.T.shape == wide.T.shape
    assert torch.equal(codes.T.T.clone().wide(), wide)
    assert torch.equal(codes.T + 1, wide.T + 1)
    assert torch.equal(codes.to(torch.float64), wide.double())
    assert torch.equal(torch.linalg.norm(codes.detach(), dim=1), torch.linalg.norm(wide, dim=1))


def test_another_device_gets_codes() -> None:
    moved = weight(torch.bfloat16)[0].to("meta")
    assert isinstance(moved, QuantizedWeight)
    assert moved.dtype == torch.bfloat16
    assert [part.device.type for part in moved.parts] == ["meta", "meta"]


def test_it_cannot_be_written_to() -> None:
    codes, _ = weight(torch.float32)
    for write in (lambda: codes.mul_(2), lambda: codes.copy_(torch.zeros(OUT, IN)), codes.zero_):
        with pytest.raises(RuntimeError, match="frozen"):
            write()


@pytest.mark.parametrize("dora", [False, True])
def test_peft_puts_its_own_layers_on_it(dora: bool) -> None:
    results = []
    for codes in (True, False):
        torch.manual_seed(1)
        model = nn.Sequential()
        model.proj = linear(torch.float32, codes=codes)
        config = LoraConfig(
            r=4, target_modules=["proj"], use_dora=dora, init_lora_weights="gaussian"
        )
        inject_adapter_in_model(config, model)
        results.append(passed(model.proj, inputs(torch.float32)))
        named = {n: p.grad for n, p in model.named_parameters() if p.requires_grad}
        assert named
        results[-1] += tuple(grad for _, grad in sorted(named.items()))
    for found, wanted in zip(*results, strict=True):
        assert torch.equal(found, wanted)


def test_joint_adapters_share_it() -> None:
    results = []
    for weight_ in weight(torch.float32):
        torch.manual_seed(2)
        x = torch.randn(3, 5, IN, requires_grad=True)
        down, up = torch.randn(3, 2, IN), torch.randn(3, 2, OUT)
        scale = torch.ones(3, 1, 1)
        y = _Adapted.apply(x, weight_, None, down, up, scale, (), None)  # type: ignore[no-untyped-call]
        y.square().sum().backward()
        results.append((y.detach(), x.grad))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize("dtype", DTYPES)
def test_it_is_compiled_into_the_graph(dtype: torch.dtype) -> None:
    torch._dynamo.reset()
    layer = linear(dtype, codes=True)
    compiled = torch.compile(layer, fullgraph=True, dynamic=True, backend="aot_eager")
    found, wanted = passed(compiled, inputs(dtype)), passed(layer, inputs(dtype))
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b)


def test_the_widened_matrix_is_that_of_functional_linear_under_autocast() -> None:
    codes, wide = weight(torch.bfloat16)
    x = torch.randn(4, IN)
    with torch.autocast("cpu", dtype=torch.bfloat16, cache_enabled=False):
        assert torch.equal(functional.linear(x, codes), functional.linear(x, wide))
