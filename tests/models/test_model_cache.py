"""A returned base is bit-identical to a fresh one, whatever the job did to it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from miniatures import flat_batch

from graftlab.adapters.peft import Lora, attach
from graftlab.models.base import Base
from graftlab.models.cache import forget, lend
from graftlab.models.hf import HFModel
from graftlab.objectives.policy import Policy

CPU = torch.device("cpu")
JOBS = {
    "lora": Lora(rank=4, dropout=0.1),
    "dora": Lora(rank=4, dora=True),
    "saved": Lora(rank=4, modules_to_save=["lm_head", "norm", "embed_tokens"]),
    "head": Lora(rank=4, targets=["lm_head", "up_proj"]),
}


@pytest.fixture(autouse=True)
def nothing_resting() -> Iterator[None]:
    forget()
    yield
    forget()


def everything(base: Base) -> dict[str, object]:
    """All that a base is: tensors, module classes, flags."""
    tensors = [*base.model.named_parameters(), *base.model.named_buffers()]
    seen: dict[str, object] = {
        name: hashlib.sha256(t.detach().contiguous().view(torch.uint8).numpy()).hexdigest()
        for name, t in tensors
        if t.numel()
    }
    for name, module in base.model.named_modules():
        hooks = len(module._forward_hooks) + len(module._forward_pre_hooks)
        checkpointing = getattr(module, "gradient_checkpointing", None)
        seen[f"module {name}"] = (type(module), module.training, checkpointing, hooks)
    seen["trainable"] = [n for n, p in base.model.named_parameters() if p.requires_grad]
    seen["gradients"] = [n for n, p in base.model.named_parameters() if p.grad is not None]
    seen["attention"] = base.model.config._attn_implementation
    seen["attributes"] = sorted(vars(base.model))
    seen["adapter"] = base.adapter
    return seen


def train(base: Base, lora: Lora) -> float:
    adapter = attach(base, lora, seed=0, dtype=torch.float32)
    base.set_checkpointing(True)
    optimizer = torch.optim.AdamW([p for _, p in adapter.named_parameters()], lr=1e-2)
    for step in range(2):
        adapter.set_step(seed=0, step=step, micro_step=0)
        loss = Policy(base, adapter).label_nll(flat_batch([20, 15]))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return loss.item()


@pytest.mark.parametrize("job", JOBS)
def test_a_returned_base_is_a_fresh_one(job: str, qwen2_folder: Path) -> None:
    spec = HFModel(path=str(qwen2_folder))
    fresh = everything(spec.load(dtype=torch.float32, device=CPU))
    with lend(spec, dtype=torch.float32, device=CPU) as first:
        alone = train(first, JOBS[job])
        assert everything(first) != fresh
    with lend(spec, dtype=torch.float32, device=CPU) as second:
        assert second is first
        attributes = set(fresh.pop("attributes")) ^ set(
            (now := everything(second)).pop("attributes")
        )
        assert attributes <= {"_gradient_checkpointing_func"}
        assert now == fresh
        assert train(second, JOBS[job]) == alone


def test_a_failed_job_returns_the_base_too(qwen2_folder: Path) -> None:
    spec = HFModel(path=str(qwen2_folder))
    with (
        pytest.raises(RuntimeError, match="stop"),
        lend(spec, dtype=torch.float32, device=CPU) as a,
    ):
        attach(a, Lora(rank=4), seed=0, dtype=torch.float32)
        raise RuntimeError("stop")
    with lend(spec, dtype=torch.float32, device=CPU) as b:
        assert b is a and b.adapter is None


def test_a_base_that_was_written_to_is_not_lent_again(qwen2_folder: Path) -> None:
    spec = HFModel(path=str(qwen2_folder))
    with lend(spec, dtype=torch.float32, device=CPU) as a, torch.no_grad():
        a.model.lm_head.weight.mul_(1.5)
    with lend(spec, dtype=torch.float32, device=CPU) as b:
        assert b is not a


def test_another_spec_gets_another_base_and_a_lent_one_is_not_shared(
    qwen2_folder: Path,
) -> None:
    spec = HFModel(path=str(qwen2_folder))
    with (
        lend(spec, dtype=torch.float32, device=CPU) as a,
        lend(spec, dtype=torch.float32, device=CPU) as b,
        lend(spec, dtype=torch.bfloat16, device=CPU) as c,
    ):
        assert a is not b
        assert c.dtype == torch.bfloat16 and a.dtype == torch.float32
