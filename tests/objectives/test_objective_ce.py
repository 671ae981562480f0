"""Cross-entropy at labels: equal to full logits, packed as alone, and zero with a graph."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

import graftlab.objectives.policy as policy_module
from graftlab.adapters.base import Adapter
from graftlab.adapters.lora import Lora
from graftlab.adapters.peft import attach
from graftlab.models.base import Base
from graftlab.objectives.policy import Policy, per_document
from graftlab.objectives.sft import SFT
from graftlab.types import IGNORE, Batch
from miniatures import TRANSFORMERS, flat_batch, single_documents

MakeBase = Callable[..., Base]
LENGTHS = [33, 8, 40]


def trained(base: Base, lora: Lora | None = None) -> Adapter:
    """An adapter whose every weight matters."""
    adapter = attach(base, lora or Lora(rank=4), seed=0, dtype=torch.float32)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for _, parameter in adapter.named_parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.05)
    base.model.train()
    return adapter


def gradients(policy: Policy, batches: list[Batch]) -> tuple[float, dict[str, torch.Tensor]]:
    assert policy.adapter is not None
    for _, parameter in policy.adapter.named_parameters():
        parameter.grad = None
    total = 0.0
    for batch in batches:
        loss = SFT().terms(policy, batch)["loss"]
        loss.backward()
        total += loss.item()
    found = {n: p.grad for n, p in policy.adapter.named_parameters()}
    assert all(gradient is not None for gradient in found.values())
    return total, {n: g for n, g in found.items() if g is not None}


@pytest.mark.parametrize("kind", TRANSFORMERS)
def test_packed_and_unpacked_give_the_same_gradients(kind: str, make_base: MakeBase) -> None:
    base = make_base(kind)
    policy = Policy(base, trained(base))
    batch = flat_batch(LENGTHS, vocab_size=base.vocab_size)
    packed_loss, packed = gradients(policy, [batch])
    alone_loss, alone = gradients(policy, single_documents(batch))
    assert packed_loss == pytest.approx(alone_loss, rel=1e-5)
    assert len(packed) >= 16
    for name, gradient in packed.items():
        assert gradient.norm() > 0
        assert (gradient - alone[name]).norm() < 1e-4 * gradient.norm(), name


@pytest.mark.parametrize("kind", ["qwen2", "gemma2", "granite", "cohere"])
def test_chunks_give_the_gradient_of_full_logits(
    kind: str, make_base: MakeBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = make_base(kind)
    policy = Policy(base, trained(base, Lora(rank=4, modules_to_save=["lm_head"])))
    batch = flat_batch(LENGTHS)
    logits = base.logits(base.hidden(batch)[0]).float()
    full = torch.nn.functional.cross_entropy(logits, batch.labels[0], reduction="sum")
    assert policy.adapter is not None
    parameters = [p for _, p in policy.adapter.named_parameters()]
    expected = torch.autograd.grad(full, parameters)

    calls: list[int] = []
    honest = base.logits

    def counting(hidden: torch.Tensor) -> torch.Tensor:
        calls.append(len(hidden))
        return honest(hidden)

    monkeypatch.setattr(base, "logits", counting)
    for rows in (8, 1000):
        monkeypatch.setattr(policy_module, "CHUNK_ELEMENTS", rows * base.vocab_size)
        calls.clear()
        loss, found = gradients(policy, [batch])
        assert max(calls) <= rows
        assert max(calls) < batch.num_tokens / 2
        assert len(calls) == (2 * -(-26 // 8) if rows == 8 else 1)  # each chunk twice, or one once
        assert loss == pytest.approx(full.item(), rel=1e-6)
        for gradient, wanted in zip(found.values(), expected, strict=True):
            torch.testing.assert_close(gradient, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("chunk_rows", [4, 1000])
def test_no_label_is_a_zero_that_reaches_every_parameter(
    chunk_rows: int, make_base: MakeBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = make_base()
    monkeypatch.setattr(policy_module, "CHUNK_ELEMENTS", chunk_rows * base.vocab_size)
    lora = Lora(rank=4, dora=True, modules_to_save=["lm_head"])
    policy = Policy(base, trained(base, lora))
    batch = flat_batch([5])
    batch.labels.fill_(IGNORE)
    loss, found = gradients(policy, [batch])
    assert loss == 0.0
    assert len(found) > 40
    assert not any(gradient.any() for gradient in found.values())


def test_the_loss_is_fp32_under_bf16_autocast(make_base: MakeBase) -> None:
    base = make_base(dtype=torch.bfloat16)
    policy = Policy(base, trained(base))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = policy.label_nll(flat_batch(LENGTHS))
    assert loss.dtype == torch.float32
    assert loss.ndim == 0
    loss.backward()
    assert policy.adapter is not None
    assert all(p.grad is not None for _, p in policy.adapter.named_parameters())


def test_logits_and_losses_are_fp32_in_plain_bf16(make_base: MakeBase) -> None:
    """No autocast raises them here, as under precision=bf16."""
    base = make_base(dtype=torch.bfloat16)
    policy = Policy(base, trained(base))
    batch = flat_batch(LENGTHS)
    with torch.no_grad():
        hidden, labels = policy.labelled(batch)
        logits, nll = policy.logits(hidden), policy.nll(batch)
    assert hidden.dtype == torch.bfloat16
    assert logits.dtype == nll.dtype == torch.float32
    assert torch.equal(logits, base.logits(hidden).float())
    exact = torch.nn.functional.cross_entropy(logits.double(), labels, reduction="none")
    torch.testing.assert_close(nll.double(), exact, rtol=1e-5, atol=1e-6)
    rounded = torch.nn.functional.cross_entropy(logits.bfloat16(), labels, reduction="none")
    assert (rounded.double() - exact).abs().max() > 1e-3  # what half precision would lose


def test_losses_per_document_add_up(make_base: MakeBase) -> None:
    base = make_base()
    policy = Policy(base, trained(base))
    batch = flat_batch(LENGTHS)
    with torch.no_grad():
        documents = per_document(policy.nll(batch), batch)
        singles = [(policy.nll(single), single) for single in single_documents(batch)]
    assert [count for _, count in documents] == [11, 2, 13]
    assert sum(nats for nats, _ in documents) == pytest.approx(policy.label_nll(batch).item())
    alone = [per_document(nll, single)[0] for nll, single in singles]
    assert documents[2][0] == pytest.approx(alone[2][0], rel=1e-5)
