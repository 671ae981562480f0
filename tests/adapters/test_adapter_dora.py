"""DoRA on a base with rows of zeros, whose norm it would divide by."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from peft.tuners.lora.dora import DoraLinearLayer

from graftlab.adapters.artifact import find_artifact
from graftlab.adapters.lora import Lora
from graftlab.adapters.peft import attach, load_adapter
from graftlab.errors import ModelError
from graftlab.models.base import Base
from graftlab.objectives.policy import Policy
from miniatures import flat_batch

MakeBase = Callable[..., Base]
BATCH = flat_batch([40, 50])
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")


@pytest.fixture
def base(make_base: MakeBase) -> Iterator[Base]:
    """A miniature whose first layer attends evenly, and a quarter of whose values are unused."""
    base = make_base()
    with torch.no_grad():
        for name, module in base.model.named_modules():
            if name.endswith(("layers.0.self_attn.q_proj", "layers.0.self_attn.k_proj")):
                module.weight.zero_()
            if name.endswith("o_proj"):
                module.weight[:16] = 0
    yield base
    base.reset()


@torch.no_grad()
def logits(base: Base) -> torch.Tensor:
    return base.logits(base.hidden(BATCH)[0])


def train(base: Base, adapter, steps: int = 20) -> list[float]:
    """Losses of a few steps on one batch; every gradient is finite."""
    policy, parameters = Policy(base, adapter), [p for _, p in adapter.named_parameters()]
    optimizer, losses = torch.optim.AdamW(parameters, lr=3e-3), []
    for _ in range(steps):
        loss = policy.label_nll(BATCH).mean()
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in parameters)
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


@pytest.mark.parametrize("init", ["default", "gaussian", "orthogonal"])
def test_rows_of_zeros_start_as_the_base_and_are_trained(init: str, base: Base) -> None:
    alone = logits(base)
    adapter = attach(base, Lora(rank=4, dora=True, init=init), seed=0, dtype=torch.float32)
    torch.testing.assert_close(logits(base), alone, atol=2e-5, rtol=0)
    before = adapter.state_dict()
    empty = {n: t == 0 for n, t in before.items() if n.endswith("magnitude_vector")}
    assert sum(int(rows.sum()) for rows in empty.values()) == 64 + 32 + 2 * 16
    losses = train(base, adapter)
    assert losses[-1] < 0.9 * losses[0]
    after = adapter.state_dict()
    moved = [n for n, rows in empty.items() if rows.any() and after[n][rows].all()]
    assert sum(name.endswith("o_proj.lora_magnitude_vector") for name in moved) == 2


@pytest.mark.parametrize("steps", [0, 5])
def test_plain_peft_gives_the_same_logits(steps: int, base: Base, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base.model.save_pretrained(tmp_path / "base")
    adapter = attach(base, Lora(rank=4, dora=True), seed=0, dtype=torch.float32)
    train(base, adapter, steps)
    adapter.save(tmp_path / "adapter")
    ours = logits(base)
    stock = AutoModelForCausalLM.from_pretrained(tmp_path / "base", attn_implementation="eager")
    peft = PeftModel.from_pretrained(stock, tmp_path / "adapter").eval()
    merged = [peft, peft.merge_and_unload(safe_merge=True)]
    ends = BATCH.boundaries.tolist()
    for model in merged:
        for start, end in pairwise(ends):
            with torch.no_grad():
                theirs = model(BATCH.input_ids[:, start:end]).logits[0]
            torch.testing.assert_close(ours[start:end], theirs, atol=5e-5, rtol=1e-4)


def test_every_strength_is_a_number(base: Base) -> None:
    alone = logits(base)
    adapter = attach(base, Lora(rank=4, dora=True), seed=0, dtype=torch.float32)
    train(base, adapter, 5)
    tuned = logits(base)
    with adapter.scaled(0.0):
        assert torch.equal(logits(base), alone)
    for factor in (1e-3, 0.5):
        with adapter.scaled(factor):
            assert logits(base).isfinite().all()
    assert torch.equal(logits(base), tuned)


@torch.no_grad()
def test_sampling_computes_norms_once_and_says_the_same(
    base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At any strength, and nothing of it is left for the passes that follow."""
    adapter = attach(base, Lora(rank=4, dora=True), seed=0, dtype=torch.float32)
    with torch.enable_grad():
        train(base, adapter, 5)
    base.model.eval()
    layers = [m for m in base.model.modules() if isinstance(m, DoraLinearLayer)]
    ids, norm, norms = BATCH.input_ids[:, :6], torch.linalg.norm, []
    monkeypatch.setattr(torch.linalg, "norm", lambda *a, **k: norms.append(a) or norm(*a, **k))

    def read() -> tuple[torch.Tensor, int]:
        """Logits of four passes, and how many numbers DoRA keeps for the next."""
        with base.context() as context:
            passes = [context.feed(ids[:, :3], last=1)]
            passes += [context.feed(ids[:, place : place + 1], last=1) for place in (3, 4, 5)]
            kept = sum(value.numel() for m in layers for value in m._dora_cache.values())
        return torch.cat(passes, dim=1), kept

    found, kept = read()
    assert len(norms) == len(layers) > 0
    assert kept == sum(layer.weight.numel() for layer in layers)  # norms, and no matrices
    with monkeypatch.context() as patch:
        patch.setattr("graftlab.models.hf_context.dora_norms_kept", lambda model: nullcontext())
        norms.clear()
        anew, _ = read()
    assert len(norms) == 4 * len(layers)
    torch.testing.assert_close(found, anew, rtol=0, atol=0)
    with adapter.scaled(0.5):
        softer, _ = read()
    assert not torch.allclose(softer, found)
    assert all(not layer._dora_cache for layer in layers)
    torch.testing.assert_close(read()[0], found, rtol=0, atol=0)


def test_an_adapter_that_divides_zero_by_zero_is_refused(base: Base, tmp_path: Path) -> None:
    adapter = attach(base, Lora(rank=4, dora=True), seed=0, dtype=torch.float32)
    with torch.no_grad():  # as PEFT's own initialisation leaves it
        for name, parameter in adapter.named_parameters():
            if name.endswith("layers.0.self_attn.q_proj.lora_B.weight"):
                parameter.zero_()
    adapter.save(tmp_path)
    adapter.detach()
    with pytest.raises(ModelError, match=r"layers\.0\.self_attn\.q_proj.*64 rows.*zero"):
        load_adapter(base, find_artifact(str(tmp_path)).require_adapter())
    assert base.adapter is None
