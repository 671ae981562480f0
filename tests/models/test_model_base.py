"""The frozen base: packed as alone, logits as the model's own, checkpointing that is really on."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from graftlab.adapters.lora import Lora
from graftlab.adapters.peft import attach
from graftlab.models.base import Base
from graftlab.objectives.policy import Policy
from miniatures import TRANSFORMERS, flat_batch, single_documents
from tolerance import assert_same

MakeBase = Callable[..., Base]
LENGTHS = [30, 9, 41]  # longer and shorter than the miniatures' sliding window of 16


@pytest.mark.parametrize("kind", TRANSFORMERS)
@torch.no_grad()
def test_packed_logits_are_the_stock_models_own(kind: str, make_base: MakeBase) -> None:
    base = make_base(kind)
    batch = flat_batch(LENGTHS, vocab_size=base.vocab_size)
    packed = base.logits(base.hidden(batch)[0])
    with base.plain():
        alone = [base.model(single.input_ids).logits[0] for single in single_documents(batch)]
    assert_same(packed, torch.cat(alone))
    assert packed.std() > 0.2


HEAD_EXTRAS = {
    "gemma2": "final_logit_softcapping",
    "granite": "logits_scaling",
    "cohere": "logit_scale",
}


@pytest.mark.parametrize("kind", HEAD_EXTRAS)
@torch.no_grad()
def test_logits_include_what_the_head_adds(kind: str, make_base: MakeBase) -> None:
    base = make_base(kind)
    hidden = base.hidden(flat_batch(LENGTHS))[0]
    head_alone = base.model.lm_head(hidden)
    assert getattr(base.config, HEAD_EXTRAS[kind]) is not None
    assert (base.logits(hidden) - head_alone).abs().max() > 0.05
    assert base.logits(hidden[:0]).shape == (0, base.vocab_size)


@pytest.mark.parametrize("kind", ["qwen2", "gemma2", "gemma3"])
def test_plain_serves_generation_with_a_cache_and_restores(kind: str, make_base: MakeBase) -> None:
    base = make_base(kind)
    base.model.train()
    packed = base.model.config._attn_implementation
    prompt = flat_batch([20]).input_ids
    with base.plain(), torch.no_grad():
        assert not base.model.training
        cached = base.model.generate(
            prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=8, do_sample=False
        )
    assert base.model.training
    assert base.model.config._attn_implementation == packed
    ids = prompt
    with torch.no_grad():
        for _ in range(cached.shape[1] - prompt.shape[1]):
            batch = flat_batch([ids.shape[1]])
            batch.input_ids = ids
            step = base.logits(base.hidden(batch)[0, -1:]).argmax(-1)
            ids = torch.cat([ids, step[None]], 1)
    assert torch.equal(ids, cached)
    assert ids.shape[1] > 21


def test_checkpointing_recomputes_each_layer_and_changes_nothing(make_base: MakeBase) -> None:
    base = make_base()
    adapter = attach(base, Lora(rank=4), seed=0, dtype=torch.float32)
    forwards = 0

    def count(*_: object) -> None:
        nonlocal forwards
        forwards += 1

    # Inside the layer, so it runs again when the layer is recomputed; before the module, because
    # the recomputation stops at the last tensor it needs.
    for layer in base.layers:
        layer.mlp.register_forward_pre_hook(count)
    counts, gradients = [], []
    for on in (False, True, False):
        base.set_checkpointing(on)
        assert base.model.training
        forwards = 0
        Policy(base, adapter).label_nll(flat_batch(LENGTHS)).backward()
        counts.append(forwards)
        gradients.append([p.grad.clone() for _, p in adapter.named_parameters()])
        base.model.zero_grad()
    assert counts == [2, 4, 2]
    base.set_checkpointing(True)
    assert not base.model.get_input_embeddings()(torch.tensor([1])).requires_grad
    assert all(torch.equal(a, b) for a, b in zip(gradients[0], gradients[1], strict=True))


def test_a_base_is_frozen_and_its_own_dropout_is_off(make_base: MakeBase) -> None:
    base = make_base("granite")
    assert not any(p.requires_grad for p in base.model.parameters())
    for module in base.model.modules():
        assert getattr(module, "attention_dropout", 0.0) == 0.0
    assert base.num_parameters == sum(p.numel() for p in base.model.parameters())
    assert (base.name, len(base.layers), base.dtype) == ("granite", 2, torch.float32)
