"""Apple's on-device model as a base: read without a copy, packed, frozen to the last observer."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from afm_assets import config, make_assets
from branched import as_token_set, pair_documents
from graftlab.adapters.attach import attach
from graftlab.adapters.lora import Lora
from graftlab.apple.base import AFMBase
from graftlab.apple.files import create_on_meta
from graftlab.apple.model import AFMModel
from graftlab.errors import ConfigError, LeakError, ModelError
from graftlab.models.cache import acquire, forget
from graftlab.models.probe import check_isolation, probe_batch, probe_documents
from graftlab.models.probe_branches import check_branches
from graftlab.objectives.policy import Policy
from graftlab.packing.rows import make_batch
from tolerance import assert_same

LORA = Lora(rank=4, alpha=2, targets="all-linear")


def spec_of(folder: Path) -> AFMModel:
    return AFMModel(path=str(folder), template="chatml")


@pytest.fixture
def own(afm_folder, tmp_path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(afm_folder, tmp_path / "assets"))


@pytest.fixture(scope="module")
def theirs(afm_folder):
    """The same model as tamm alone loads it."""
    import tamm.utils.json

    text = (afm_folder / "base-model-config.json").read_text()
    model = tamm.utils.json.loads(text).create_model()
    model.load_state_dict(torch.load(afm_folder / "base-model.pt", weights_only=True))
    return model.eval()


def documents():
    return probe_documents(400, 1)[:3]


def test_the_full_model_counts_as_published():
    """On the meta device: 3.18B parameters, of which 66.6M in 700 tensors of the adapter."""
    from tamm.ao.arch_optimizers import KVQuantArchOptimizer
    from tamm.models.afm_text import AFMTextV7

    full = AFMTextV7.Config(arch_optimizers={"kv_quant": KVQuantArchOptimizer()})
    names = {"name": "full", "source": "", "folder": Path(), "fingerprint": ""}
    base = AFMBase(create_on_meta(full), **names)
    adapter = attach(
        base, Lora(rank=32, alpha=16, targets="all-linear"), seed=0, dtype=torch.float32
    )
    assert adapter.num_trainable == 66_633_728
    assert len(adapter.named_parameters()) == 700
    assert base.num_parameters + adapter.num_trainable == 3_178_001_792
    assert len(base.layers) == 56
    assert base.num_regular_layers == 35
    assert adapter.notes == []
    assert base.dimensions.attention_width == 16 * 128


def test_logits_are_those_of_tamm(make_afm, theirs):
    base = make_afm()
    batch = probe_batch(documents()[:1])
    with torch.no_grad():
        ours = base.logits(base.hidden(batch)[0])
        expected = theirs(batch.input_ids).logits[0]
    assert_same(ours, expected)
    assert expected.abs().max() > 0.1


@pytest.mark.parametrize("attention", ["segments", "dense"])
def test_packing_is_that_of_tamm_with_segment_ids(afm_folder, theirs, attention):
    spec = AFMModel(path=str(afm_folder), attention=attention)
    base = spec.load(dtype=torch.float32, device=torch.device("cpu"))
    batch = probe_batch(documents())
    segments = torch.cat([torch.full((len(d),), n) for n, d in enumerate(documents(), start=1)])
    with torch.no_grad():
        ours = base.hidden(batch)
        expected = theirs(batch.input_ids, segment_ids=segments[None]).last_hidden_state
        mixed = theirs(batch.input_ids).last_hidden_state
    assert base.backend == attention
    assert_same(ours, expected)
    assert (mixed - expected).abs().max() > 1e-2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_documents_are_isolated(make_afm, dtype):
    base = make_afm(dtype)
    adapter = attach(base, LORA, seed=0, dtype=torch.float32)

    def autocast():
        mixed = dtype == torch.bfloat16
        return torch.autocast("cpu", dtype=dtype) if mixed else nullcontext()

    assert "documents are isolated" in check_isolation(base, adapter, autocast=autocast)
    assert base.dtype == dtype


@pytest.mark.parametrize("attention", ["segments", "dense"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_branches_see_their_prompt_and_themselves(afm_folder, dtype, attention):
    spec = AFMModel(path=str(afm_folder), attention=attention)
    base = spec.load(dtype=dtype, device=torch.device("cpu"))
    adapter = attach(base, LORA, seed=0, dtype=torch.float32)

    def autocast():
        mixed = dtype == torch.bfloat16
        return torch.autocast("cpu", dtype=dtype) if mixed else nullcontext()

    assert "branches behind a shared prompt" in check_branches(base, adapter, autocast=autocast)
    assert base.backend == attention


@pytest.mark.parametrize("checkpointing", [False, True])
def test_pairs_train_as_two_documents_do(make_afm, checkpointing):
    found = []
    for share in (True, False):
        base = make_afm()
        adapter = attach(base, LORA, seed=0, dtype=torch.float32)
        for name, parameter in adapter.named_parameters():
            if name.endswith("b_transpose"):
                torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(1))
        base.set_checkpointing(checkpointing)
        tokens = as_token_set(pair_documents(), share_prompts=share)
        batch = make_batch(tokens, [0, 1, 2, 3], step_units=1)
        assert (batch.parents is not None) == share
        Policy(base, adapter).label_nll(batch).backward()
        found.append([p.grad for _, p in adapter.named_parameters()])
    for one, other in zip(*found, strict=True):
        assert (one - other).norm() <= 1e-4 * other.norm()
    assert all(gradient.abs().max() > 0 for gradient in found[0])


def test_the_probe_sees_a_leak(make_afm, monkeypatch):
    base, hidden = make_afm(), AFMBase.hidden

    def leaking(self, batch):
        batch.boundaries = torch.tensor([0, batch.num_tokens], dtype=torch.int32)
        return hidden(self, batch)

    monkeypatch.setattr(AFMBase, "hidden", leaking)
    with pytest.raises(LeakError, match="see each other"):
        check_isolation(base, None, autocast=nullcontext)


def test_nothing_of_the_base_moves_in_training(make_afm):
    """Neither weights nor what the KV quantisers measured, whatever mode the model is put into."""
    base = make_afm()
    before = {name: tensor.clone() for name, tensor in base.model.state_dict().items()}
    adapter = attach(base, LORA, seed=0, dtype=torch.float32)
    base.set_checkpointing(False)
    base.model.train()
    base.hidden(probe_batch(documents())).square().sum().backward()
    adapter.detach()
    after = base.model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    ranges = [name for name in before if name.endswith("activation_post_process.range")]
    assert len(ranges) == 2 * 2
    assert all(before[name].abs().max() != 1 for name in ranges)  # measured, not as they are made
    assert not any(parameter.requires_grad for parameter in base.model.parameters())
    assert sum(".wrapped." in name for name in before) == 2 * 5 + 2 * 5


def test_recomputation_changes_no_gradient(make_afm):
    found = []
    for on in (False, True):
        base = make_afm()
        adapter = attach(base, Lora(rank=4, alpha=2, dropout=0.3), seed=0, dtype=torch.float32)
        for name, parameter in adapter.named_parameters():
            if name.endswith("b_transpose"):
                torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(1))
        base.set_checkpointing(on)
        adapter.set_step(seed=0, step=3, micro_step=0)
        base.hidden(probe_batch(documents())).square().sum().backward()
        found.append([p.grad for _, p in adapter.named_parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    assert all(gradient.abs().max() > 0 for gradient in found[0])


def test_weights_are_mapped_from_the_file(make_afm, afm_folder):
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("no /proc on this system")
    base = make_afm()
    address = base.model.embedding.weight.data_ptr()
    spans = [line.split() for line in maps.read_text().splitlines()]
    (found,) = [
        line[-1]
        for line in spans
        if int(line[0].split("-")[0], 16) <= address < int(line[0].split("-")[1], 16)
    ]
    assert found == str(afm_folder / "base-model.pt")


def test_only_matrices_are_cast(make_afm):
    base = make_afm(torch.bfloat16)
    kinds = {(p.ndim > 1, p.dtype) for p in base.model.parameters()}
    assert kinds == {(True, torch.bfloat16), (False, torch.float32)}
    assert base.model.is_embedding_tied_to_output_transform


def test_a_base_is_lent_as_fresh_as_it_was_loaded(afm_folder):
    forget()
    spec, place = spec_of(afm_folder), {"dtype": torch.float32, "device": torch.device("cpu")}
    batch = probe_batch(documents())
    with torch.no_grad():
        with acquire(spec, **place) as first:
            expected = first.hidden(batch)
            adapter = attach(first, LORA, seed=0, dtype=torch.float32)
            first.set_checkpointing(True)
            for _, parameter in adapter.named_parameters():
                parameter.fill_(0.1)
            assert not torch.equal(first.hidden(batch), expected)
        with acquire(spec, **place) as second:
            assert second is first
            assert torch.equal(second.hidden(batch), expected)
            assert not second.model.training
    forget()


def test_a_config_may_be_named_otherwise(own):
    (own / "base-model-config.json").rename(own / "afm.json")
    (own / "weights_spec.json").write_text("{}")
    (own / "draft-model-config.json").write_text((own / "afm.json").read_text())
    spec_of(own).check()


def test_a_model_saved_without_adapters_fits_too(make_afm, tmp_path):
    """Names without `.wrapped.`, as tamm writes them for a config that has no adapters."""
    plain = make_assets(tmp_path / "plain", adapters=None)
    names = torch.load(plain / "base-model.pt", weights_only=True)
    assert not any(".wrapped." in name for name in names)
    ours = spec_of(plain).load(dtype=torch.float32, device=torch.device("cpu"))
    assert ours.model.state_dict().keys() == make_afm().model.state_dict().keys()


def test_all_that_is_missing_is_named_at_once(own):
    for name in ("base-model.pt", "base-model-config.json", "tokenizer.model"):
        (own / name).unlink()
    with pytest.raises(ModelError, match=r"base-model\.pt.*tokenizer\.model.*base-model-config"):
        spec_of(own).check()
    with pytest.raises(ModelError, match=r"no such folder.*Did you mean `assets`"):
        spec_of(own.with_name("asets")).check()
    with pytest.raises(ConfigError, match=r"needs model\.path=DIR"):
        AFMModel().check()


def test_a_damaged_file_says_so(own):
    file = own / "base-model.pt"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match=r"base-model\.pt is cut off"):
        spec_of(own).check()
    file.write_bytes(b"not a checkpoint")
    with pytest.raises(ModelError, match=r"torch\.save did not write it"):
        spec_of(own).check()


def test_a_base_with_a_trained_adapter_inside_is_refused(own):
    """Its update would be left out without a word; a fresh one's B is zero."""
    file = own / "base-model.pt"
    state = torch.load(file, weights_only=True)
    (name, *_) = [key for key in state if key.endswith("b_transpose")]
    assert not state[name].any()
    spec_of(own).load(dtype=torch.float32, device=torch.device("cpu"))
    state[name] = torch.ones_like(state[name])
    torch.save(state, file)
    with pytest.raises(ModelError, match=r"trained adapter \(.*b_transpose is not zero\)"):
        spec_of(own).load(dtype=torch.float32, device=torch.device("cpu"))


class Trap:
    """Unpickling it would leave a file behind."""

    def __init__(self, place: str) -> None:
        self.place = place

    def __reduce__(self):
        return os.mkdir, (self.place,)


def test_a_pickled_object_is_never_opened(own, tmp_path):
    sprung = tmp_path / "sprung"
    torch.save({"embedding.weight": torch.zeros(2), "x": Trap(str(sprung))}, own / "base-model.pt")
    with pytest.raises(ModelError, match="pickled objects .* not opened"):
        spec_of(own).load(dtype=torch.float32, device=torch.device("cpu"))
    assert not sprung.exists()
    pickle.loads(pickle.dumps(Trap(str(sprung))))
    assert sprung.exists()


def test_weights_of_another_model_are_refused(own):
    import tamm.utils.json

    other = tamm.utils.json.dumps(config(num_layers=5))
    (own / "base-model-config.json").write_text(other)
    with pytest.raises(
        ModelError, match=r"is not the model that base-model-config\.json describes"
    ):
        spec_of(own).load(dtype=torch.float32, device=torch.device("cpu"))
    torch.save({"nested": {"a": 1}}, own / "base-model.pt")
    with pytest.raises(ModelError, match="not a flat state dict"):
        spec_of(own).load(dtype=torch.float32, device=torch.device("cpu"))
    (own / "base-model-config.json").write_text(json.dumps({"__tamm_type__": "models:None"}))
    with pytest.raises(ModelError, match="not a model config that tamm can read"):
        spec_of(own).load(dtype=torch.float32, device=torch.device("cpu"))


def test_the_fingerprint_is_of_the_weights(own, afm_folder):
    known = spec_of(afm_folder).fingerprint()
    state = torch.load(own / "base-model.pt", weights_only=True)
    torch.save(state, own / "elsewhere.pt")
    (own / "elsewhere.pt").replace(own / "base-model.pt")
    assert spec_of(own).fingerprint() == known
    for name in ("embedding.weight", "output_norm.weight"):
        changed = {**state, name: state[name] + 1e-3}
        torch.save(changed, own / "base-model.pt")
        assert spec_of(own).fingerprint() != known
