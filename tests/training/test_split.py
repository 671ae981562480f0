"""The split step: bf16 weights follow fp32 ones, where plain bf16 stands still."""

from __future__ import annotations

import io

import pytest
import torch

from graftlab.errors import ConfigError
from graftlab.training.optimizers.adamw import AdamW
from graftlab.training.optimizers.custom import CustomOptimizer
from graftlab.training.split import SplitAdamW, join, split


def trained(optimizer_class, dtype, *, steps=300, lr=2e-5, restart_at=None):
    """A parameter pulled steadily to smaller values, and its optimizer."""
    parameter = torch.nn.Parameter(torch.linspace(0.5, 2.0, 64).bfloat16().to(dtype))
    optimizer = optimizer_class([parameter], lr=lr, weight_decay=0.0)
    for step in range(steps):
        if step == restart_at:
            file = io.BytesIO()
            torch.save({"p": parameter.data, "o": optimizer.state_dict()}, file)
            file.seek(0)
            saved = torch.load(file, weights_only=True)
            parameter = torch.nn.Parameter(saved["p"])
            optimizer = optimizer_class([parameter], lr=lr, weight_decay=0.0)
            optimizer.load_state_dict(saved["o"])
        noise = torch.randn(64, generator=torch.Generator().manual_seed(step))
        parameter.grad = (1.0 + 0.3 * noise).bfloat16().to(dtype)
        optimizer.step()
    return parameter.data.float(), optimizer.state[parameter]


def test_the_two_halves_are_the_fp32_weight():
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(10_000, generator=generator) * torch.logspace(-30, 10, 10_000)
    weights = torch.cat([weights, torch.tensor([0.0, -0.0, 1.0, -1.5, 3.0e-39])])
    rounded, remainder = split(weights)
    assert torch.equal(rounded, weights.bfloat16())
    off = (join(rounded, remainder).view(torch.int32) - weights.view(torch.int32)).abs()
    assert off.max() <= 1  # one unit in the last place, and only for ties
    assert (off > 0).float().mean() < 1e-3
    tie = torch.tensor([1.0 + 2**-8])
    assert split(tie)[0].item() == 1.0
    assert join(*split(tie)).item() == pytest.approx(tie.item(), rel=2**-22)


def test_bf16_follows_fp32_where_plain_bf16_stands_still():
    start = torch.linspace(0.5, 2.0, 64).bfloat16().float()
    exact, _ = trained(torch.optim.AdamW, torch.float32)
    moved = (exact - start).abs().mean()
    plain, _ = trained(torch.optim.AdamW, torch.bfloat16)
    assert (plain - start).abs().mean() < 0.05 * moved  # the trap this module is for
    ours, state = trained(SplitAdamW, torch.bfloat16)
    torch.testing.assert_close(join(ours.bfloat16(), state["remainder"]), exact, rtol=0, atol=1e-6)


def test_saved_and_restored_it_goes_on_bit_for_bit():
    whole, state = trained(SplitAdamW, torch.bfloat16, steps=60)
    resumed, resumed_state = trained(SplitAdamW, torch.bfloat16, steps=60, restart_at=23)
    assert torch.equal(whole, resumed)
    for name in ("exp_avg", "exp_avg_sq", "remainder"):
        assert state[name].dtype == resumed_state[name].dtype
        assert torch.equal(state[name], resumed_state[name])


def test_adamw_chooses_the_step_by_dtype_and_leaves_vectors_undecayed():
    def named(dtype):
        return [("A", torch.nn.Parameter(torch.ones(2, 2, dtype=dtype))),
                ("magnitude", torch.nn.Parameter(torch.ones(2, dtype=dtype)))]  # fmt: skip

    plain = AdamW(weight_decay=0.3).build(named(torch.float32), lr=0.1)
    assert type(plain) is torch.optim.AdamW
    assert [g["weight_decay"] for g in plain.param_groups] == [0.3, 0.0]
    assert isinstance(AdamW().build(named(torch.bfloat16), lr=0.1), SplitAdamW)


def test_custom_optimizers_are_checked_against_their_signature():
    parameter = [("A", torch.nn.Parameter(torch.ones(2)))]
    built = CustomOptimizer(target="torch.optim.SGD", arguments={"momentum": 0.9})
    assert built.build(parameter, lr=0.1).defaults["momentum"] == 0.9
    with pytest.raises(ConfigError, match=r"optimizer.arguments.momentun.*`momentum`"):
        CustomOptimizer(arguments={"momentun": 0.9}).build(parameter, lr=0.1)
    with pytest.raises(ConfigError, match="no optimizer of torch.optim.*`Adafactor`"):
        CustomOptimizer(target="torch.optim.Adafacter").build(parameter, lr=0.1)
    with pytest.raises(ConfigError, match="only classes under torch.optim"):
        CustomOptimizer(target="os.system")
    with pytest.raises(ConfigError, match="precision=bf16"):
        CustomOptimizer().build([("A", torch.nn.Parameter(torch.ones(2).bfloat16()))], lr=0.1)
