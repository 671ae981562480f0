"""Layers that keep little: the numbers of the model's own code, exact gradients, less memory."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from transformers.activations import ACT2FN

from graftlab.adapters.attach import attach
from graftlab.adapters.lora import Lora
from graftlab.models.base import Base
from graftlab.models.compile import compile_layers, restore_layers
from graftlab.models.recompute import (
    _SLOPES,
    _Gated,
    _Norm,
    _scaled,
    keep_little,
    restore_modules,
)
from graftlab.objectives.policy import Policy
from miniatures import flat_batch

MakeBase = Callable[..., Base]
LORA = Lora(rank=4, init="orthogonal")


def lean(base: Base) -> list[str]:
    """Names of the modules whose forward is not their class's own."""
    return [name for name, module in base.model.named_modules() if "forward" in vars(module)]


@pytest.mark.parametrize("gemma", [False, True])
def test_the_norm_s_backward_pass_is_that_of_its_forward(gemma: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(n, 6, dtype=torch.float64, generator=generator) for n in (5, 1))

    def run(x: Tensor) -> Tensor:
        out: Tensor = _Norm.apply(x, weight[0], 1e-6, gemma)[0]  # type: ignore[no-untyped-call]
        return out

    assert torch.autograd.gradcheck(run, x.requires_grad_())
    inverse = x.square().mean(-1, keepdim=True).add(1e-6).rsqrt()
    assert torch.allclose(run(x), _scaled(gemma, x, inverse, weight[0]))


@pytest.mark.parametrize("name", ["silu", "gelu", "gelu_pytorch_tanh"])
def test_the_gate_s_backward_pass_is_that_of_its_forward(name: str) -> None:
    act = ACT2FN[name]
    slope = _SLOPES[type(act).__name__]
    generator = torch.Generator().manual_seed(0)
    gate, up = (torch.randn(4, 5, dtype=torch.float64, generator=generator) for _ in range(2))

    def run(gate: Tensor, up: Tensor) -> Tensor:
        out: Tensor = _Gated.apply(act, slope, gate, up)  # type: ignore[no-untyped-call]
        return out

    assert torch.autograd.gradcheck(run, (gate.requires_grad_(), up.requires_grad_()))
    assert torch.equal(run(gate, up), act(gate) * up)


def step(base: Base, dtype: torch.dtype) -> tuple[list[Tensor], int]:
    """Loss and gradients of a packed row, and the bytes that were kept in its layers."""
    adapter, kept = base.adapter, dict[int, int]()
    assert adapter is not None
    weights = {p.untyped_storage().data_ptr() for p in base.model.parameters()}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    policy, batch = Policy(base, adapter), flat_batch([120, 90])  # type: ignore[arg-type]
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            policy.hidden(batch)
        loss = policy.label_nll(batch)
    trained = [parameter for _, parameter in adapter.named_parameters()]
    return [loss.detach(), *torch.autograd.grad(loss, trained)], sum(kept.values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kind", ["llama", "qwen3", "gemma2"])
def test_they_compute_what_the_model_does_and_keep_less(
    kind: str, dtype: torch.dtype, make_base: MakeBase
) -> None:
    base = make_base(kind, dtype=dtype)
    attach(base, LORA, seed=0, dtype=torch.float32)
    base.set_checkpointing(False)
    assert len(lean(base)) >= 3 * len(base.layers)
    ours, less = step(base, dtype)
    restore_modules(base)
    assert not lean(base)
    theirs, more = step(base, dtype)
    assert torch.equal(ours[0], theirs[0])
    rounding = 1e-5 if dtype == torch.float32 else 0.03
    for found, wanted in zip(ours[1:], theirs[1:], strict=True):
        assert (found - wanted).norm() < rounding * wanted.norm()
    assert less < 0.75 * more


def test_a_norm_that_is_trained_has_its_gradient(make_base: MakeBase) -> None:
    base = make_base("llama")
    attach(base, Lora(full=True), seed=0, dtype=torch.float32)
    base.set_checkpointing(False)
    assert lean(base)
    ours, _ = step(base, torch.float32)
    restore_modules(base)
    theirs, _ = step(base, torch.float32)
    for found, wanted in zip(ours, theirs, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)


def test_other_modules_stay_and_compiled_layers_are_as_they_came(
    make_base: MakeBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    other = make_base("phi3")  # gate and up are one matrix
    keep_little(other)
    assert {name.rpartition(".")[2] for name in lean(other)} == {
        "input_layernorm",
        "post_attention_layernorm",
        "norm",
    }
    base = make_base("llama")
    keep_little(base)
    compile_layers(base)
    assert len(lean(base)) == len(base.layers), "those of the layers themselves"
    restore_layers(base)
    assert not lean(base)
