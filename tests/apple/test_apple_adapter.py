"""tamm's LoRA as an adapter of ours: what it computes, on and off, drawn, saved and refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from afm_assets import config
from graftlab.adapters.artifact import find_artifact
from graftlab.adapters.attach import attach, check_lora, load_adapter
from graftlab.adapters.lora import Lora
from graftlab.apple.checkpoints import read, write
from graftlab.apple.model import AFMModel
from graftlab.apple.targets import ALL
from graftlab.errors import ConfigError, ModelError
from graftlab.models.probe import probe_batch, probe_documents

LORA = Lora(rank=4, alpha=2, targets="all-linear")


def hidden(base):
    with torch.no_grad(), base.evaluating():
        return base.hidden(probe_batch(probe_documents(400, 1)[:3]))


def stir(adapter):
    """An adapter that does something, as a trained one does."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for _, parameter in adapter.named_parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))


@pytest.fixture
def base(make_afm):
    return make_afm()


@pytest.fixture
def stirred(base):
    adapter = attach(base, LORA, seed=0, dtype=torch.float32)
    stir(adapter)
    return adapter


def test_a_fresh_adapter_changes_nothing(base):
    before = hidden(base)
    attach(base, LORA, seed=0, dtype=torch.float32)
    assert torch.equal(hidden(base), before)


def test_names_and_outputs_are_those_of_tamm(base, stirred, afm_folder):
    """tamm's own adapted model, with the same weights: names, order and numbers agree."""
    model = config().create_model()
    names = [name for name, _ in model.named_parameters() if "adapter" in name]
    assert [name for name, _ in stirred.named_parameters()] == names
    state = torch.load(afm_folder / "base-model.pt", weights_only=True)
    model.load_state_dict({**state, **stirred.state_dict()})
    batch = probe_batch(probe_documents(400, 1)[:1])
    with torch.no_grad():
        theirs = model.eval()(batch.input_ids).last_hidden_state
        ours = base.hidden(batch)
    assert (ours - theirs).abs().max() < 1e-5
    with stirred.disabled():
        assert (hidden(base)[:, : batch.num_tokens] - theirs).abs().max() > 1e-2


def test_values_depend_on_seed_and_name_alone(make_afm):
    def drawn(lora, seed, stray):
        torch.manual_seed(stray)
        before = torch.get_rng_state()
        state = attach(make_afm(), lora, seed=seed, dtype=torch.float32).state_dict()
        assert torch.equal(torch.get_rng_state(), before)
        return state

    one, again = drawn(LORA, 0, 1), drawn(LORA, 0, 2)
    fewer = drawn(replace(LORA, targets=["q_proj"]), 0, 3)
    other = drawn(LORA, 1, 1)
    down = [name for name in one if name.endswith("a_transpose")]
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert 0 < len(fewer) < len(one)
    assert all(torch.equal(one[name], fewer[name]) for name in fewer)
    assert not any(torch.equal(one[name], other[name]) for name in down)
    spread = torch.cat([one[name].flatten() * one[name].shape[0] ** 0.5 for name in down]).std()
    assert spread == pytest.approx(1, abs=0.05)
    assert all(one[name].abs().max() == 0 for name in one if name not in down)


@pytest.mark.parametrize("init", ["gaussian", "orthogonal"])
def test_other_inits_leave_the_base_as_it_was(base, init):
    before = hidden(base)
    adapter = attach(base, replace(LORA, init=init), seed=0, dtype=torch.float32)
    assert (hidden(base) - before).abs().max() < 1e-5
    assert all(p.abs().max() > 0 for n, p in adapter.named_parameters() if "a_transpose" in n)


def test_strength_and_off(base, stirred):
    full = hidden(base)
    with stirred.disabled():
        off = hidden(base)
    with stirred.scaled(0):
        assert torch.equal(hidden(base), off)
    with stirred.scaled(0.5):
        half = hidden(base)
    assert torch.equal(hidden(base), full)
    assert 0 < (half - off).norm() < (full - off).norm()
    assert all(parameter.requires_grad for _, parameter in stirred.named_parameters())


def test_detached_and_mounted(base, stirred):
    full = hidden(base)
    weights = stirred.state_dict()
    stirred.detach()
    assert base.adapter is None
    off = hidden(base)
    assert not torch.equal(off, full)
    assert not any("adapters" in name for name in base.model.state_dict())
    assert all(torch.equal(weights[name], p) for name, p in stirred.named_parameters())
    with stirred.mounted():
        assert torch.equal(hidden(base), full)
    assert torch.equal(hidden(base), off)


def test_dropout_is_a_function_of_seed_and_step(base):
    adapter = attach(base, replace(LORA, dropout=0.5), seed=0, dtype=torch.float32)
    stir(adapter)
    base.set_checkpointing(False)
    batch = probe_batch(probe_documents(400, 1)[:2])

    def at(step, micro_step=0, stray=0):
        torch.manual_seed(stray)
        adapter.set_step(seed=0, step=step, micro_step=micro_step)
        with torch.no_grad():
            return base.hidden(batch)

    assert torch.equal(at(1, stray=1), at(1, stray=2))
    assert not torch.equal(at(1), at(2))
    assert not torch.equal(at(1), at(1, micro_step=1))
    with base.evaluating():
        assert torch.equal(at(1), at(2))


def test_saved_and_loaded(base, stirred, make_afm, tmp_path):
    stirred.save(tmp_path / "one")
    source = find_artifact(str(tmp_path / "one")).require_adapter()
    assert source.base_fingerprint() == base.fingerprint
    other = make_afm()
    again = load_adapter(other, source)
    assert torch.equal(hidden(other), hidden(base))
    again.save(tmp_path / "two")
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    content = json.loads((tmp_path / "one" / "adapter_config.json").read_text())
    assert (content["format"], content["rank"], content["alpha"]) == ("tamm", 4, 2)


def test_a_toolkit_checkpoint_is_an_adapter(base, stirred, make_afm, tmp_path):
    """What the toolkit writes, a flat state dict, is loaded at its scale, and continued."""
    torch.save(stirred.state_dict(), tmp_path / "adapter-final.pt")
    other = make_afm()
    source = find_artifact(str(tmp_path / "adapter-final.pt")).require_adapter()
    adapter = load_adapter(other, source)
    assert torch.equal(hidden(other), hidden(base))
    adapter.detach()
    start = replace(LORA, from_run=str(tmp_path / "adapter-final.pt"))
    continued = attach(other, start, seed=9, dtype=torch.float32)
    assert torch.equal(hidden(other), hidden(base))
    write(continued.state_dict(), tmp_path / "out.pt")
    written = torch.load(tmp_path / "out.pt", weights_only=True)
    assert list(written) == [name for name, _ in stirred.named_parameters()]


@pytest.mark.parametrize(
    ("targets", "layers", "count"),
    [("attn", None, 2 * 4 + 2 * 2), ("attn-mlp", 2, 2 * 5), (["v_proj", "up_proj"], None, 2 + 4)],
)
def test_targets_and_layers(base, targets, layers, count, tmp_path):
    lora = Lora(rank=4, alpha=2, targets=targets, layers=layers)
    adapter = attach(base, lora, seed=0, dtype=torch.float32)
    assert len(adapter.named_parameters()) == 2 * count
    assert len(adapter.notes) == 1
    if layers:
        assert all("segment_1" in name for name, _ in adapter.named_parameters())
    adapter.save(tmp_path / "adapter")
    adapter.detach()
    again = load_adapter(base, find_artifact(str(tmp_path / "adapter")).require_adapter())
    assert len(again.named_parameters()) == 2 * count


def test_only_what_runs_on_a_device_goes_without_a_word(base):
    everything = Lora(rank=32, alpha=16, targets="all-linear")
    proven = attach(base, everything, seed=0, dtype=torch.float32)
    assert proven.notes == []
    proven.detach()
    assert "rank 4" in attach(base, LORA, seed=0, dtype=torch.float32).notes[0]


def test_what_tamm_cannot_do_is_refused(afm_folder):
    spec = AFMModel(path=str(afm_folder))
    with pytest.raises(ConfigError, match=r"lora\.dora.*lora\.modules_to_save"):
        check_lora(spec, Lora(dora=True, modules_to_save=["lm_head"]))
    patterns = {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"q_proj": 2.0}}
    more = Lora(trainable_tokens=["x"], init="eva", **patterns)
    with pytest.raises(ConfigError, match=r"init.*rank_pattern.*alpha_pattern.*trainable_tokens"):
        check_lora(spec, more)
    with pytest.raises(ConfigError, match=r"q_porj is no linear layer.*Did you mean `q_proj`"):
        check_lora(spec, Lora(targets=["q_porj"]))
    with pytest.raises(ConfigError, match=r"lora\.layers=5: this model has 4 layers"):
        check_lora(spec, Lora(layers=5))
    check_lora(spec, Lora(layers=4, targets=list(ALL), rslora=True))


def test_another_make_is_not_continued(base, stirred, tmp_path):
    write(stirred.state_dict(), tmp_path / "adapter.pt")
    stirred.detach()
    start = replace(LORA, rank=8, alpha=4, from_run=str(tmp_path / "adapter.pt"))
    with pytest.raises(ConfigError, match=r"lora\.rank: asked 8, it has 4"):
        attach(base, start, seed=0, dtype=torch.float32)
    assert base.adapter is None


def test_another_base_is_not_continued(stirred, make_afm, tmp_path):
    stirred.save(tmp_path / "adapter")
    other = make_afm()
    other.fingerprint = "another"
    start = replace(LORA, from_run=str(tmp_path / "adapter"))
    with pytest.raises(ConfigError, match="was trained on another base"):
        attach(other, start, seed=0, dtype=torch.float32)


def test_adapters_of_the_other_library_are_refused(base, make_base, stirred, tmp_path):
    stirred.save(tmp_path / "tamm")
    qwen = make_base()
    attach(qwen, Lora(), seed=0, dtype=torch.float32).save(tmp_path / "peft")
    qwen.adapter.detach()
    stirred.detach()
    with pytest.raises(ModelError, match="is an adapter of LORA: .* takes those of tamm"):
        load_adapter(base, find_artifact(str(tmp_path / "peft")).require_adapter())
    with pytest.raises(ModelError, match=r"not in PEFT's format \(tamm\)"):
        load_adapter(qwen, find_artifact(str(tmp_path / "tamm")).require_adapter())


def test_a_checkpoint_that_does_not_fit_leaves_a_clean_base(base, stirred, tmp_path):
    state = stirred.state_dict()
    stirred.detach()
    before = hidden(base)
    state.pop(next(iter(state)))
    write(state, tmp_path / "torn.pt")
    with pytest.raises(ModelError, match=r"torn\.pt does not fit .*is missing"):
        load_adapter(base, find_artifact(str(tmp_path / "torn.pt")).require_adapter())
    assert base.adapter is None
    assert torch.equal(hidden(base), before)
    odd = {name: t[:, :2] if "lora_0.a_tr" in name else t for name, t in state.items()}
    write(odd, tmp_path / "odd.pt")
    with pytest.raises(ModelError, match="no one rank"):
        load_adapter(base, find_artifact(str(tmp_path / "odd.pt")).require_adapter())
    assert read(Path(tmp_path / "odd.pt"))
