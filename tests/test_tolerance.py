"""The comparison used by other tests: it passes what rounding explains, and nothing else."""

from __future__ import annotations

import pytest
import torch

from tolerance import ROUNDINGS, assert_same, rounding


def layers(dtype: torch.dtype, *, width: int = 64, depth: int = 4) -> list[torch.Tensor]:
    made = torch.Generator().manual_seed(0)
    return [
        torch.randn(width, width, generator=made, dtype=torch.float64).div(width**0.5).to(dtype)
        for _ in range(depth)
    ]


def run(weights: list[torch.Tensor], *, order: torch.Tensor) -> torch.Tensor:
    """Layers whose sums are taken in the given order."""
    x = torch.randn(32, 64, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x = x.to(weights[0].dtype)
    for weight in weights:
        x = sum((x[:, k, None] * weight[k] for k in order.tolist()), torch.zeros_like(x)).tanh()
    return x


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_another_order_is_the_same(dtype: torch.dtype):
    weights = layers(dtype)
    there = run(weights, order=torch.arange(64))
    back = run(weights, order=torch.arange(63, -1, -1))
    assert not torch.equal(there, back), "rounding was seen"
    if dtype == torch.bfloat16:  # at 8 bits four layers' bound is no longer a bound
        with pytest.raises(AssertionError, match="would let through"):
            assert_same(there, back)
    else:
        assert_same(there, back)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_what_rounding_does_not_explain_is_refused(dtype: torch.dtype):
    weights = layers(dtype)
    right = run(weights, order=torch.arange(64))
    weights[2] = weights[2] * (1 + ROUNDINGS * 50 * torch.finfo(dtype).eps)
    with pytest.raises(AssertionError, match="not close"):
        assert_same(run(weights, order=torch.arange(64)), right)
    with pytest.raises(AssertionError, match="not close"):
        assert_same(right.roll(1, dims=0), right)


def test_constants_are_not_judged():
    flat = torch.full((8,), 3.0)
    with pytest.raises(AssertionError, match="would let through"):
        assert_same(flat, flat)
    with pytest.raises(AssertionError, match="would let through"):
        assert_same(torch.zeros(8), torch.zeros(8))


def test_the_bound_grows_with_depth_and_magnitude():
    once = rounding(1.0, depth=1)
    assert rounding(2.0, depth=3) == pytest.approx(6 * once)
    assert rounding(1.0, depth=1, dtype=torch.float64) < 1e-8 * once * 1e2
