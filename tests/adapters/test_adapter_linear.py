"""One node for base product and update: PEFT's numbers, exact gradients, little that is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from peft.tuners.lora.layer import Linear
from torch import Tensor, nn

from graftlab.adapters.dropout import KeyedDropout
from graftlab.adapters.linear import AdaptedLinear, adapted_linear
from graftlab.adapters.lora import Lora
from graftlab.adapters.peft import attach
from graftlab.adapters.peft_adapter import PeftAdapter
from graftlab.models import upcast
from graftlab.models.base import Base
from graftlab.models.quantization.int8_rows import Int8Rows
from graftlab.models.quantization.nf4_blocks import NF4Blocks
from graftlab.models.upcast import computed_in, upcast_products
from graftlab.objectives.policy import Policy
from miniatures import flat_batch
from tolerance import assert_same

MakeBase = Callable[..., Base]
BF16 = torch.bfloat16


@pytest.fixture
def upcasting() -> Iterator[None]:
    """16-bit products computed in fp32; as before afterwards."""
    installed = bool(upcast._libraries)
    upcast_products()
    yield
    if not installed:
        for library in upcast._libraries:
            library._destroy()
        upcast._libraries.clear()


def stirred(base: Base, lora: Lora, dtype: torch.dtype = torch.float32) -> PeftAdapter:
    adapter = attach(base, lora, seed=0, dtype=dtype)
    assert isinstance(adapter, PeftAdapter)
    generator = torch.Generator().manual_seed(1)
    for _, parameter in adapter.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.data.add_(noise.to(dtype), alpha=0.05)
    base.model.train()
    return adapter


def step(adapter: PeftAdapter, *, autocast: bool) -> list[Tensor]:
    """The loss and all gradients of a packed row."""
    adapter.set_step(seed=1, step=2, micro_step=0)
    with torch.autocast("cpu", BF16, enabled=autocast):
        loss = Policy(adapter.base, adapter).label_nll(flat_batch([12, 9]))
    trained = [parameter for _, parameter in adapter.named_parameters()]
    return [loss.detach(), *torch.autograd.grad(loss, trained)]


def by_peft(adapter: PeftAdapter) -> None:
    for layer in adapter.layers.values():
        layer.__class__ = Linear


def quantised(base: Base, scheme: NF4Blocks | Int8Rows | None) -> Base:
    for layer in base.layers if scheme else ():
        for module in layer.modules():
            if isinstance(module, nn.Linear):
                codes = scheme.quantise(module.weight.data.float(), module.weight.dtype)  # type: ignore[union-attr]
                module.weight = nn.Parameter(codes, requires_grad=False)
    return base


@pytest.mark.parametrize("scheme", [None, NF4Blocks(), Int8Rows()], ids=str)
@pytest.mark.parametrize("lora", [Lora(rank=4), Lora(rank=4, dropout=0.5)], ids=["", "dropout"])
def test_fp32_is_what_pefts_modules_compute(
    scheme: NF4Blocks | Int8Rows | None, lora: Lora, make_base: MakeBase
) -> None:
    adapter = stirred(quantised(make_base(), scheme), lora)
    assert all(type(layer) is AdaptedLinear for layer in adapter.layers.values())
    ours = step(adapter, autocast=False)
    by_peft(adapter)
    theirs = step(adapter, autocast=False)
    for found, wanted in zip(ours, theirs, strict=True):
        assert wanted.any()
        torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-6 * float(wanted.abs().max()))


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("mixed", [True, False])
def test_bf16_is_theirs_within_its_own_rounding(
    wide: bool, mixed: bool, make_base: MakeBase, request: pytest.FixtureRequest
) -> None:
    """Mixed and throughout, in the processor's products and in those of fp32."""
    if wide:
        request.getfixturevalue("upcasting")
        assert computed_in(torch.ones(2, 2, dtype=BF16)) == torch.float32
    trained = torch.float32 if mixed else BF16
    adapter = stirred(make_base(dtype=BF16), Lora(rank=4, dropout=0.2), trained)
    ours = step(adapter, autocast=mixed)
    by_peft(adapter)
    theirs = step(adapter, autocast=mixed)
    for found, wanted in zip(ours[1:], theirs[1:], strict=True):
        difference = (found - wanted).float().norm() / wanted.float().norm()
        assert 0 < difference < 0.03
    assert abs(float(ours[0] - theirs[0])) < 0.01 * float(theirs[0])


@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_its_backward_pass_is_that_of_its_forward(dropout: float) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(5, 4, dtype=torch.float64).requires_grad_(False)
    down = torch.randn(1, 2, 5, dtype=torch.float64, requires_grad=True)
    up = torch.randn(1, 2, 4, dtype=torch.float64, requires_grad=True)
    x = torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True)
    drops = [KeyedDropout(dropout, torch.tensor(7))] if dropout else ()

    def run(x: Tensor, down: Tensor, up: Tensor) -> Tensor:
        return adapted_linear(x, linear, down, up, 0.7, drops)

    assert torch.autograd.gradcheck(run, (x, down, up))
    plain = linear(x) + 0.7 * (x @ down[0].T @ up[0])
    assert torch.allclose(run(x, down, up), plain) == (dropout == 0)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_an_input_is_kept_once_and_as_it_came(dropout: float, make_base: MakeBase) -> None:
    """Beside it only h: no mask, no copy that a product needed, no weight of either factor."""
    adapter = stirred(make_base(dtype=BF16), Lora(rank=4, dropout=dropout))
    layer = next(iter(adapter.layers.values()))
    x, kept = torch.randn(1, 30, layer.in_features, dtype=BF16, requires_grad=True), list[Tensor]()

    def keep(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, nn.Parameter) and tensor.numel() > 1:
            kept.append(tensor)
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with hooks, torch.autocast("cpu", BF16):
        layer(x)
    factors = {layer.lora_A["default"].weight.data_ptr(), layer.lora_B["default"].weight.data_ptr()}
    kept = [tensor for tensor in kept if tensor.data_ptr() not in factors]
    assert [tuple(tensor.shape) for tensor in kept] == [(1, 30, 4), (1, 30, layer.in_features)]
    assert kept[1].data_ptr() == x.data_ptr()


def test_what_is_no_plain_lora_stays_with_peft_and_is_said(make_base: MakeBase) -> None:
    plain = stirred(make_base(), Lora(rank=4))
    assert list(plain.notes) == ["base product and update of each module are one node"]
    dora = stirred(make_base(), Lora(rank=4, dora=True))
    count = len(dora.layers)
    assert not any(isinstance(layer, AdaptedLinear) for layer in dora.layers.values())
    assert list(dora.notes) == [
        f"{count} of {count} modules are computed by PEFT's own layers (DoRA), the others by one "
        "node each"
    ]


def test_switched_off_it_is_the_base(make_base: MakeBase) -> None:
    adapter = stirred(make_base(), Lora(rank=4))
    layer = next(iter(adapter.layers.values()))
    x = torch.randn(1, 7, layer.in_features)
    with torch.no_grad():
        tuned = layer(x)
        with adapter.disabled():
            assert torch.equal(layer(x), layer.get_base_layer()(x))
        layer.merge()
        assert_same(layer(x), tuned)
        layer.unmerge()
    assert not torch.equal(tuned, layer.get_base_layer()(x))
