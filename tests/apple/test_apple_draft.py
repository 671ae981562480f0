"""Drafts of Apple's kind: small, of one vocabulary with their base, trained whole and read back."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from graftlab.adapters.attach import attach
from graftlab.adapters.draft import DraftModel
from graftlab.adapters.lora import Lora
from graftlab.apple.base import AFMBase
from graftlab.apple.draft import sizes_of
from graftlab.apple.model import AFMModel
from graftlab.errors import ModelError
from graftlab.models.folder import model_in

CPU = torch.device("cpu")


def test_a_draft_of_the_full_model_is_as_large_as_the_toolkits():
    """48.8M parameters for a base of 3.18B; counted without memory."""
    from tamm.models.afm_text import AFMTextV7

    sizes = sizes_of(AFMTextV7.Config(), layers=None, hidden=None)
    assert (sizes.hidden, sizes.layers, sizes.heads, sizes.key_heads) == (256, 14, 2, 1)
    assert sizes.reused == 5  # of 14, as 21 of 56
    model = AFMTextV7.Config(
        hidden_dim=sizes.hidden,
        num_layers=sizes.layers,
        num_kv_reuse_layers=sizes.reused,
        num_heads=sizes.heads,
        num_kv_heads=sizes.key_heads,
        device="meta",
    ).create_model()
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(48.8e6, rel=0.06)


@pytest.fixture
def spec(afm_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DraftModel:
    monkeypatch.setenv("GRAFTLAB_CACHE", str(tmp_path / "cache"))
    return DraftModel(of=str(afm_folder), template="chatml")


def load(spec: DraftModel | AFMModel) -> AFMBase:
    base = spec.load(dtype=torch.float32, device=CPU)
    assert isinstance(base, AFMBase)
    return base


def test_it_is_small_and_speaks_its_base_s_vocabulary(spec, afm_folder, tmp_path, monkeypatch):
    spec.check()
    small = load(spec)
    large = load(AFMModel(path=str(afm_folder)))
    assert small.vocab_size == large.vocab_size
    assert small.num_parameters < large.num_parameters / 2
    theirs = AFMModel(path=str(afm_folder), template="chatml").load_tokenizer()
    assert spec.load_tokenizer().fingerprint == theirs.fingerprint
    assert spec.folder() == spec.folder()  # made once
    other = DraftModel(of=spec.of, seed=1, template="chatml")
    assert other.fingerprint() != spec.fingerprint()
    monkeypatch.setenv("GRAFTLAB_CACHE", str(tmp_path / "other"))
    again = load(spec)
    for name, weight in small.model.state_dict().items():
        assert torch.equal(weight, again.model.state_dict()[name])


def test_all_of_it_is_trained_and_read_back(spec, tmp_path):
    base = load(spec)
    adapter = attach(base, Lora(full=True), seed=0, dtype=torch.float32)
    assert adapter.num_trainable == base.num_parameters
    with torch.no_grad():
        for _, parameter in adapter.named_parameters():
            parameter.add_(0.01)
    adapter.save(tmp_path / "adapter")
    spec.load_tokenizer().save(tmp_path / "adapter")
    found = model_in(tmp_path / "adapter")
    assert isinstance(found, AFMModel)
    read = dict(load(found).model.named_parameters())
    assert len(read) > 10
    for name, parameter in adapter.named_parameters():
        assert torch.equal(read[name], parameter), name
    with adapter.disabled():
        base_now = dict(base.model.named_parameters())
    assert not any(torch.equal(base_now[name], read[name]) for name in read)


def test_the_toolkits_own_draft_is_taken(spec, afm_folder, tmp_path):
    """Unless a size is asked for."""
    assets = tmp_path / "assets"
    assets.mkdir()
    for file in afm_folder.iterdir():
        (assets / file.name).symlink_to(file)
    fresh = spec.folder()
    (assets / "draft-model.pt").symlink_to(fresh / "base-model.pt")
    (assets / "draft-model-config.json").symlink_to(fresh / "base-model-config.json")
    theirs = DraftModel(of=str(assets), seed=5, template="chatml")
    mine = load(spec).model.state_dict()
    assert all(torch.equal(mine[n], t) for n, t in load(theirs).model.state_dict().items())
    asked = load(DraftModel(of=str(assets), layers=3, template="chatml"))
    assert len(asked.layers) == 3


def test_a_width_without_heads_is_refused(afm_folder):
    with pytest.raises(ModelError, match=r"model\.of=.*model\.hidden=40"):
        DraftModel(of=str(afm_folder), hidden=40).check()
