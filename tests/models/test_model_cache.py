"""A returned base is bit-identical to a fresh one, whatever the job did to it."""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from graftlab.adapters.lora import Lora
from graftlab.adapters.peft import attach
from graftlab.models.base import Base
from graftlab.models.cache import acquire, forget
from graftlab.models.compile import compile_layers
from graftlab.models.hf import HFModel
from graftlab.models.quantization.int8 import Int8
from graftlab.models.quantization.weight import QuantizedWeight, widened
from graftlab.objectives.policy import Policy
from miniatures import flat_batch

# Raised by PyTorch's own compiler while it is imported.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
CPU = torch.device("cpu")
# Left behind where checkpointing was switched on and off; read only while it is on.
INERT = {"gradient_checkpointing", "_gradient_checkpointing_func", "_require_grads_hooks"}
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


def everything(base: Base) -> dict[str, Any]:
    """All that a base is: tensors, module classes, flags."""
    tensors = [*base.model.named_parameters(), *base.model.named_buffers()]
    seen: dict[str, Any] = {
        name: hashlib.sha256(t.detach().contiguous().view(torch.uint8).numpy()).hexdigest()
        for name, t in tensors
        if t.numel()
    }
    for name, module in base.model.named_modules():
        hooks = len(module._forward_hooks) + len(module._forward_pre_hooks)
        checkpointing = getattr(module, "gradient_checkpointing", None)
        state = (module.training, checkpointing, hooks, sorted(set(vars(module)) - INERT))
        seen[f"module {name}"] = (type(module), *state)
    seen["trainable"] = [n for n, p in base.model.named_parameters() if p.requires_grad]
    seen["gradients"] = [n for n, p in base.model.named_parameters() if p.grad is not None]
    seen["attention"] = base.model.config._attn_implementation
    seen["adapter"] = base.adapter
    return seen


def train(base: Base, lora: Lora) -> float:
    adapter = attach(base, lora, seed=0, dtype=torch.float32)
    base.set_checkpointing(True)
    compile_layers(base)
    optimizer = torch.optim.AdamW([p for _, p in adapter.named_parameters()], lr=1e-2)
    for step in range(2):
        adapter.set_step(seed=0, step=step, micro_step=0)
        with torch.compiler.set_stance("force_eager"):  # compiling itself has tests of its own
            loss = Policy(base, adapter).label_nll(flat_batch([20, 15]))
            loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return loss.item()


@pytest.mark.parametrize("job", JOBS)
def test_a_returned_base_is_a_fresh_one(job: str, qwen2_folder: Path) -> None:
    spec = HFModel(path=str(qwen2_folder))
    fresh = everything(spec.load(dtype=torch.float32, device=CPU))
    with acquire(spec, dtype=torch.float32, device=CPU) as first:
        alone = train(first, JOBS[job])
        assert everything(first) != fresh
    with acquire(spec, dtype=torch.float32, device=CPU) as second:
        assert second is first
        assert everything(second) == fresh
        assert train(second, JOBS[job]) == alone


def fail_on(spec: HFModel) -> None:
    with acquire(spec, dtype=torch.float32, device=CPU) as base:
        attach(base, Lora(rank=4), seed=0, dtype=torch.float32)
        raise RuntimeError(id(base))


def test_a_failed_job_returns_the_base_too(qwen2_folder: Path) -> None:
    spec = HFModel(path=str(qwen2_folder))
    with pytest.raises(RuntimeError) as failed:
        fail_on(spec)
    with acquire(spec, dtype=torch.float32, device=CPU) as base:
        assert id(base) == failed.value.args[0]
        assert base.adapter is None


def test_a_base_that_was_written_to_is_not_lent_again(qwen2_folder: Path) -> None:
    spec = HFModel(path=str(qwen2_folder))
    with acquire(spec, dtype=torch.float32, device=CPU) as a, torch.no_grad():
        a.model.lm_head.weight.mul_(1.5)
    with acquire(spec, dtype=torch.float32, device=CPU) as b:
        assert b is not a


def test_another_spec_gets_another_base_and_a_lent_one_is_not_shared(
    qwen2_folder: Path,
) -> None:
    spec = HFModel(path=str(qwen2_folder))
    with (
        acquire(spec, dtype=torch.float32, device=CPU) as a,
        acquire(spec, dtype=torch.float32, device=CPU) as b,
        acquire(spec, dtype=torch.bfloat16, device=CPU) as c,
    ):
        assert a is not b
        assert c.dtype == torch.bfloat16
        assert a.dtype == torch.float32


@pytest.mark.parametrize("room", [True, False])
def test_codes_are_widened_for_replies_where_there_is_room(
    room: bool, qwen2_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = HFModel(path=str(qwen2_folder), quantization=Int8())
    batch = flat_batch([9, 5])
    with acquire(spec, dtype=torch.float32, device=CPU) as packed:
        wanted = packed.logits(packed.hidden(batch)[0])
        stored, size = packed.fingerprint, 4 * packed.num_parameters
    monkeypatch.setattr("graftlab.models.hf_base.free_memory_bytes", lambda: 2 * size - (not room))

    def codes() -> list[torch.nn.Parameter]:
        return [p for p in base.model.parameters() if isinstance(p.data, QuantizedWeight)]

    with acquire(spec, dtype=torch.float32, device=CPU) as base:
        before = codes()
        with suppress(KeyboardInterrupt), base.answering(), base.answering():
            assert bool(codes()) is not room
            assert torch.equal(base.logits(base.hidden(batch)[0]), wanted)
            assert base.fingerprint == stored
            raise KeyboardInterrupt
        assert before
        assert all(map(operator.is_, codes(), before))
    with acquire(spec, dtype=torch.float32, device=CPU) as again:
        assert again is base, "nothing was written to"


def test_tied_weights_stay_one_when_they_are_widened() -> None:
    embedding, head = torch.nn.Embedding(64, 32), torch.nn.Linear(32, 64, bias=False)
    codes = Int8().quantise(torch.randn(64, 32), torch.float32)
    embedding.weight = head.weight = torch.nn.Parameter(codes, requires_grad=False)
    with widened(torch.nn.ModuleList([embedding, head])):
        assert embedding.weight is head.weight
        assert torch.equal(head.weight.data, codes.wide())
