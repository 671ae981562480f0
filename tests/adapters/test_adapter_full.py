"""All weights trained: lent weights come back, what is saved is a model, tied weights stay tied."""

from __future__ import annotations

import shutil

import pytest
import torch

from graftlab.adapters.artifact import find_artifact
from graftlab.adapters.attach import attach, load_adapter
from graftlab.adapters.full import FullAdapter
from graftlab.adapters.lora import Lora
from graftlab.adapters.store import ModelSource
from graftlab.errors import ConfigError, ModelError
from graftlab.models.hf import HFModel
from miniatures import flat_batch

FULL = Lora(full=True)


def logits(base) -> torch.Tensor:
    with torch.no_grad():
        return base.logits(base.hidden(flat_batch([9, 20]))[0]).float()


def state(base) -> dict[str, tuple[int, int, torch.Tensor]]:
    return {n: (p.data_ptr(), p._version, p.clone()) for n, p in base.model.named_parameters()}


def stir(adapter) -> None:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for _, parameter in adapter.named_parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.05)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_lent_weights_are_never_touched(make_base, dtype):
    base = make_base("qwen2", dtype)
    before, untrained = state(base), logits(base)
    adapter = attach(base, FULL, seed=0, dtype=torch.float32)
    assert adapter.num_trainable == base.num_parameters
    assert {p.dtype for _, p in adapter.named_parameters()} == {torch.float32}
    assert all(p.requires_grad for p in base.model.parameters())
    stir(adapter)
    tuned = logits(base)
    assert (tuned - untrained).abs().max() > 0.1
    with adapter.disabled():
        assert torch.equal(logits(base), untrained)
    assert torch.equal(logits(base), tuned)
    adapter.detach()
    after = state(base)
    assert {name: value[:2] for name, value in before.items()} == {
        name: value[:2] for name, value in after.items()
    }
    assert all(torch.equal(value[2], after[name][2]) for name, value in before.items())
    assert torch.equal(logits(base), untrained)
    assert not any(p.requires_grad for p in base.model.parameters())
    with adapter.mounted():
        assert torch.equal(logits(base), tuned)
    assert torch.equal(logits(base), untrained)


def test_a_tied_weight_is_one_parameter_and_gets_both_gradients(make_base):
    base = make_base("qwen2")
    adapter = attach(base, FULL, seed=0, dtype=torch.float32)
    model = base.model
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert "lm_head.weight" not in dict(adapter.named_parameters())
    batch = flat_batch([12])
    base.logits(base.hidden(batch)[0]).logsumexp(-1).sum().backward()
    unseen = sorted(set(range(400)) - set(batch.input_ids[0].tolist()))
    gradient = model.lm_head.weight.grad
    assert gradient[unseen].abs().max() > 0  # from the head, as no such token was read
    untied = attach(make_base("llama"), FULL, seed=0, dtype=torch.float32)
    assert "lm_head.weight" in dict(untied.named_parameters())


@pytest.mark.parametrize("kind", ["qwen2", "llama", "gemma2"])
def test_what_is_saved_is_a_model_and_an_adapter(make_base, tmp_path, kind):
    base = make_base(kind)
    adapter = attach(base, FULL, seed=0, dtype=torch.float32)
    stir(adapter)
    tuned = logits(base)
    adapter.save(tmp_path / "attached")
    adapter.detach()
    adapter.save(tmp_path / "detached")
    files = [
        (tmp_path / one / "model.safetensors").read_bytes() for one in ("attached", "detached")
    ]
    assert files[0] == files[1]
    alone = HFModel(path=str(tmp_path / "attached")).load(
        dtype=torch.float32, device=torch.device("cpu")
    )
    assert torch.equal(logits(alone), tuned)
    assert alone.num_parameters == base.num_parameters
    source = find_artifact(str(tmp_path / "attached")).require_adapter()
    assert isinstance(source, ModelSource)
    assert source.base_fingerprint() == base.fingerprint
    again = load_adapter(base, source)
    assert isinstance(again, FullAdapter)
    assert torch.equal(logits(base), tuned)
    with again.scaled(0.5):
        halfway = logits(base)
    assert (halfway - tuned).abs().max() > 0
    assert torch.equal(logits(base), tuned)


def test_going_on_from_another_run(make_base, make_miniature, tmp_path):
    base = make_base("qwen2")
    adapter = attach(base, FULL, seed=0, dtype=torch.float32)
    stir(adapter)
    tuned = logits(base)
    adapter.save(tmp_path / "model")
    adapter.detach()
    lora = attach(base, Lora(rank=2), seed=0, dtype=torch.float32)
    lora.save(tmp_path / "lora")
    lora.detach()
    from_run = str(tmp_path / "model")
    again = attach(base, Lora(full=True, from_run=from_run), seed=0, dtype=torch.float32)
    assert torch.equal(logits(base), tuned)
    again.detach()
    with pytest.raises(ConfigError, match="is an adapter; lora=none goes on"):
        attach(base, Lora(full=True, from_run=str(tmp_path / "lora")), seed=0, dtype=torch.float32)
    with pytest.raises(ConfigError, match="another base"):
        attach(make_base("llama"), Lora(full=True, from_run=from_run), seed=0, dtype=torch.float32)
    assert base.adapter is None


def test_weights_that_do_not_fit_leave_a_clean_base(make_base, tmp_path):
    base = make_base("qwen2")
    adapter = attach(base, FULL, seed=0, dtype=torch.float32)
    adapter.save(tmp_path / "model")
    adapter.detach()
    shutil.copytree(tmp_path / "model", tmp_path / "other")
    smaller = make_base("qwen3")
    with pytest.raises(ModelError, match="does not fit"):
        load_adapter(smaller, find_artifact(str(tmp_path / "other")).require_adapter())
    assert smaller.adapter is None
    assert not any(p.requires_grad for p in smaller.model.parameters())


def test_settings_of_an_adapter_are_refused():
    with pytest.raises(ConfigError, match=r"leave out lora\.dropout, lora\.dora"):
        Lora(full=True, dropout=0.1, dora=True)
