"""Adapter dropout: named streams, the same under recomputation and compilation."""

from __future__ import annotations

from collections.abc import Callable

import torch

from graftlab.adapters.dropout import KeyedDropout, keyed_dropout
from graftlab.adapters.lora import Lora
from graftlab.adapters.peft import attach
from graftlab.models.base import Base
from graftlab.objectives.policy import Policy
from miniatures import flat_batch

MakeBase = Callable[..., Base]


def key(value: int) -> torch.Tensor:
    return torch.tensor(value)


def test_the_op_is_sound_and_its_gradient_has_the_same_mask() -> None:
    x = torch.randn(64, 32, requires_grad=True)
    y = keyed_dropout(x, key(3), 0.25)
    kept = y != 0
    assert 0.65 < kept.float().mean() < 0.85
    torch.testing.assert_close(y[kept], x.detach()[kept] / 0.75)
    y.backward(torch.ones_like(y))
    torch.testing.assert_close(x.grad, kept.float() / 0.75)
    assert not torch.equal(kept, keyed_dropout(x, key(4), 0.25) != 0)
    torch.library.opcheck(keyed_dropout, (x, key(3), 0.25))


def test_a_transposed_gradient_meets_the_same_mask() -> None:
    module = KeyedDropout(0.5, key(1)).train()
    x = torch.randn(8, 16, requires_grad=True)
    (x_t_grad,) = torch.autograd.grad(module(x.t()).t().sum(), x)
    kept = module(x.detach().t()).t() != 0
    torch.testing.assert_close(x_t_grad, kept.float() * 2)


def test_eval_mode_lets_everything_through() -> None:
    x = torch.randn(4, 4)
    assert KeyedDropout(0.9, key(1)).eval()(x) is x


def test_masks_depend_on_seed_step_micro_step_and_module(make_base: MakeBase) -> None:
    base = make_base()
    adapter = attach(base, Lora(rank=4, dropout=0.3), seed=0, dtype=torch.float32)
    base.model.train()
    modules = [m for m in base.model.modules() if isinstance(m, KeyedDropout)]
    assert len(modules) == len(adapter.layers) == 14
    x = torch.ones(40, 40)

    def masks(seed: int, step: int, micro_step: int) -> list[torch.Tensor]:
        adapter.set_step(seed=seed, step=step, micro_step=micro_step)
        return [module(x) for module in modules]

    torch.manual_seed(0)
    state = torch.random.get_rng_state()
    first = masks(0, 5, 0)
    assert torch.equal(torch.random.get_rng_state(), state)
    drawn = [*first, *masks(1, 5, 0), *masks(0, 6, 0), *masks(0, 5, 1)]
    distinct = {mask.numpy().tobytes() for mask in drawn}
    assert len(distinct) == len(drawn) == 56
    torch.manual_seed(9)
    assert all(torch.equal(a, b) for a, b in zip(first, masks(0, 5, 0), strict=True))


def gradients(base: Base, lora: Lora, *, checkpointing: bool) -> dict[str, torch.Tensor]:
    adapter = attach(base, lora, seed=0, dtype=torch.float32)
    with torch.no_grad():
        for _, parameter in adapter.named_parameters():
            parameter.add_(0.01)
    base.model.train()
    base.set_checkpointing(checkpointing)
    adapter.set_step(seed=0, step=3, micro_step=1)
    Policy(base, adapter).label_nll(flat_batch([30, 25])).backward()
    found = {n: p.grad.clone() for n, p in adapter.named_parameters() if p.grad is not None}
    base.reset()
    return found


def test_recomputed_layers_draw_the_same_masks(make_base: MakeBase) -> None:
    base = make_base()
    for dora in (False, True):
        wet = Lora(rank=4, dropout=0.4, dora=dora)
        stored = gradients(base, wet, checkpointing=False)
        recomputed = gradients(base, wet, checkpointing=True)
        dry = gradients(base, Lora(rank=4, dora=dora), checkpointing=False)
        assert stored.keys() == recomputed.keys()
        assert len(stored) >= 28
        assert all(torch.equal(stored[n], recomputed[n]) for n in stored)
        assert any((stored[n] - dry[n]).abs().max() > 1e-2 for n in stored)


def test_a_compiled_module_draws_the_same_masks_without_recompiling() -> None:
    place = key(11)
    module = KeyedDropout(0.4, place).train()
    compiles = 0

    def count(graph: torch.fx.GraphModule, _: list[torch.Tensor]) -> Callable[..., object]:
        nonlocal compiles
        compiles += 1
        return graph.forward

    compiled = torch.compile(module, backend=count, fullgraph=True)
    x = torch.randn(16, 16)
    for value in (11, 12, 13):
        place.fill_(value)
        assert torch.equal(compiled(x), module(x))
    assert compiles == 1
