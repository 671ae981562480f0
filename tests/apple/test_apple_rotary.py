"""Our rotation is tamm's, forward and backward."""

from __future__ import annotations

import pytest
import torch
from tamm.layers import rope

from graftlab.apple.rotary import rotate


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_turned_as_tamm_turns(dtype):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 7, 3 * 16, generator=generator).to(dtype)
    positions = torch.tensor([[0, 1, 2, 3, 0, 1, 2], [5, 60, 700, 4000, 0, 1, 2]])
    made = rope.compute_rope_coefficients(positions=positions, dim=16, theta=5e5, dtype=dtype)

    def theirs(x):
        return rope.rotate(x.view(2, 7, 3, 16), rope_coefficients=made).flatten(-2)

    found = []
    for turn in (theirs, lambda x: rotate(x, made)):
        one = x.clone().requires_grad_()
        out = turn(one)
        assert out.dtype == dtype
        out.float().square().mul(torch.arange(48.0)).sum().backward()
        found.append((out.detach().float(), one.grad.float()))
    rounding = 1e-5 if dtype == torch.float32 else 2e-2
    for ours, expected in zip(found[1], found[0], strict=True):
        assert (ours - expected).norm() < rounding * expected.norm()
    assert (found[0][0] - x.float()).norm() > 0.1 * x.float().norm()


def test_every_layer_turns_this_way(make_afm):
    from tamm.layers.attention import RoPETransform

    from graftlab.apple.rotary import Rotary

    modules = list(make_afm().model.modules())
    assert sum(isinstance(module, Rotary) for module in modules) == 4
    assert not any(isinstance(module, RoPETransform) for module in modules)
