"""LoRA+: the matrices B of an adapter learn at their own multiple of the rate."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from graftlab.adapters.attach import attach
from graftlab.adapters.lora import Lora
from graftlab.errors import ConfigError
from graftlab.training.optimizers.adamw import AdamW
from graftlab.training.spec import TrainSpec
from graftlab.training.start import run


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_step_moves_each_kind_at_its_rate(dtype, make_base) -> None:
    """Adam's first step has the size of the rate, whatever the gradient."""
    adapter = attach(make_base(), Lora(rank=4, dora=True), seed=0, dtype=dtype)
    named = adapter.named_parameters()
    optimizer = AdamW(lora_plus_ratio=8.0, weight_decay=0.0).build(named, lr=0.5)
    before = {name: parameter.detach().clone() for name, parameter in named}
    for _, parameter in named:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    moved = {n: (before[n] - p.detach()).float().mean().item() for n, p in named}
    rates = {name: 4.0 if ".lora_B." in name else 0.5 for name in moved}
    assert moved == pytest.approx(rates, rel=2e-2)
    assert set(rates.values()) == {4.0, 0.5}
    assert len({id(p) for group in optimizer.param_groups for p in group["params"]}) == len(named)


def test_apples_adapter_has_its_own_names(make_afm) -> None:
    adapter = attach(make_afm(), Lora(rank=4), seed=0, dtype=torch.float32)
    groups = AdamW(lora_plus_ratio=8.0).build(adapter.named_parameters(), lr=0.5).param_groups
    rates = {group["lr"]: len(group["params"]) for group in groups}
    assert rates[4.0] == rates[0.5] > 0


def test_a_run_follows_the_schedule_at_both_rates(spec: TrainSpec) -> None:
    fast = replace(spec, optimizer=AdamW(lora_plus_ratio=16.0), max_steps=3)
    run(fast)
    checkpoint = next((p for p in _folder(fast).glob("checkpoints/*.ckpt")), None)
    assert checkpoint is not None
    content = torch.load(checkpoint, weights_only=True)
    rates = [group["lr"] for group in content["optimizer_states"][0]["param_groups"]]
    assert max(rates) == pytest.approx(16 * min(rates))


def test_there_is_no_b_where_all_weights_are_trained(spec: TrainSpec) -> None:
    with pytest.raises(ConfigError, match=r"optimizer\.lora_plus_ratio"):
        replace(spec, lora=Lora(full=True), optimizer=AdamW(lora_plus_ratio=2.0))
    with pytest.raises(ConfigError, match=r"optimizer\.lora_plus_ratio"):
        AdamW(lora_plus_ratio=0.0)


def _folder(spec: TrainSpec):
    from pathlib import Path

    return Path(spec.run_dir)
