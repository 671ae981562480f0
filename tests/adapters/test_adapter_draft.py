"""Drafts: the same architecture, smaller; equal from equal seeds; made once; clear refusals."""

from __future__ import annotations

import json
import shutil
import threading
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from graftlab import caches
from graftlab.adapters.attach import attach
from graftlab.adapters.draft import DraftModel
from graftlab.adapters.lora import Lora
from graftlab.errors import ConfigError, ModelError
from graftlab.models.probe import check_isolation
from graftlab.models.shrink import shrink
from graftlab.models.tiny import ASSET
from graftlab.text.load import load_tokenizer
from miniatures import TRANSFORMERS

CPU = torch.device("cpu")
QWEN: dict = {
    "model_type": "qwen2",
    "hidden_size": 3584,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "intermediate_size": 18944,
    "max_window_layers": 28,
    "layer_types": ["full_attention"] * 14 + ["sliding_attention"] * 14,
    "vocab_size": 152064,
}


def test_everything_that_must_agree_agrees():
    small = shrink(QWEN, layers=None, hidden=None)
    assert small["hidden_size"] == 896
    assert small["num_hidden_layers"] == 7
    assert small["num_attention_heads"] == 7  # as wide as the teacher's: 128
    assert small["num_key_value_heads"] == 1
    assert small["intermediate_size"] == 18944 // 4
    assert small["layer_types"] == ["full_attention"] * 4 + ["sliding_attention"] * 3
    assert small["tie_word_embeddings"]
    assert small["vocab_size"] == QWEN["vocab_size"]
    asked = shrink(QWEN, layers=3, hidden=512)
    assert (asked["num_hidden_layers"], asked["num_attention_heads"]) == (3, 4)
    assert asked["num_key_value_heads"] in (1, 2)


@pytest.mark.parametrize("hidden", [64, 96, 192, 320, 640])
def test_heads_divide_every_hidden_size(hidden):
    small = shrink(QWEN, layers=1, hidden=hidden)
    heads, keys = small["num_attention_heads"], small["num_key_value_heads"]
    assert hidden % heads == 0
    assert hidden // heads % 2 == 0  # rotary embeddings turn pairs
    assert heads % keys == 0


def test_a_width_without_heads_is_refused():
    with pytest.raises(ConfigError, match=r"model\.hidden=262 .* such as 256"):
        shrink(QWEN, layers=1, hidden=262)
    with pytest.raises(ModelError, match="has no num_attention_heads"):
        shrink({**QWEN, "num_attention_heads": None}, layers=1, hidden=64)


@pytest.mark.parametrize("kind", TRANSFORMERS)
def test_every_architecture_makes_a_draft_that_packs(make_miniature, kind):
    teacher = make_miniature(kind)
    spec = DraftModel(of=str(teacher), layers=1, hidden=32)
    base = spec.load(dtype=torch.float32, device=CPU)
    assert (
        base.model.config.model_type
        == json.loads((teacher / "config.json").read_text())["model_type"]
    )
    assert (base.config.hidden_size, base.config.num_hidden_layers) == (32, 1)
    assert base.model.get_output_embeddings().weight is base.model.get_input_embeddings().weight
    assert spec.load_tokenizer().fingerprint == load_tokenizer(teacher).fingerprint
    adapter = attach(base, Lora(full=True), seed=0, dtype=torch.float32)
    assert "isolated" in check_isolation(base, adapter, autocast=nullcontext)


def test_equal_seeds_give_equal_drafts_made_once(qwen2_folder, monkeypatch, tmp_path):
    monkeypatch.setenv("GRAFTLAB_CACHE", str(tmp_path / "one"))
    spec = DraftModel(of=str(qwen2_folder), layers=1, hidden=32)
    first = spec.folder()
    made = (first / "model.safetensors").stat().st_mtime_ns
    assert spec.folder() == first
    assert (first / "model.safetensors").stat().st_mtime_ns == made
    other = DraftModel(of=str(qwen2_folder), layers=1, hidden=32, seed=1).folder()
    assert other != first
    monkeypatch.setenv("GRAFTLAB_CACHE", str(tmp_path / "two"))
    torch.manual_seed(99)  # nobody else's random state counts, or is moved
    state = torch.get_rng_state()
    again = spec.folder()
    assert torch.equal(torch.get_rng_state(), state)
    weights = [(folder / "model.safetensors").read_bytes() for folder in (first, again, other)]
    assert weights[0] == weights[1] != weights[2]
    assert not list((tmp_path / "one").glob(".draft-*"))


def test_a_draft_that_another_process_makes_is_waited_for(qwen2_folder, monkeypatch, tmp_path):
    monkeypatch.setenv("GRAFTLAB_CACHE", str(tmp_path / "cache"))
    spec = DraftModel(of=str(qwen2_folder), layers=1, hidden=32)
    home = spec.folder().rename(tmp_path / "made elsewhere")
    place, waits, found = tmp_path / "cache" / spec.folder().name, threading.Event(), []
    shutil.rmtree(place)
    monkeypatch.setattr(caches, "tell", lambda line: waits.set())
    monkeypatch.setattr(DraftModel, "_build", lambda *_: found.append("built twice"))
    second = threading.Thread(target=lambda: found.append(spec.folder()))
    with caches.made_alone(place):
        second.start()
        assert waits.wait(250)
        home.rename(place)
    second.join()
    assert found == [place]


def test_words_that_are_alike_stay_alike(tmp_path, monkeypatch):
    """Of a trained embedding, a third of the directions keep who is near whom; a draw does not."""
    monkeypatch.setenv("GRAFTLAB_CACHE", str(tmp_path))
    own = load_file(ASSET / "model.safetensors")["model.embed_tokens.weight"].float()
    theirs = torch.nn.functional.normalize(own[:500], dim=1)
    close = {}
    for embedding in ("projected", "fresh"):
        spec = DraftModel(of=str(ASSET), hidden=64, embedding=embedding)
        rows = load_file(spec.folder() / "model.safetensors")["model.embed_tokens.weight"]
        assert rows.std().item() == pytest.approx(0.02, rel=0.05)
        ours = torch.nn.functional.normalize(rows[:500].float(), dim=1)
        pairs = torch.stack([(ours @ ours.T).flatten(), (theirs @ theirs.T).flatten()])
        close[embedding] = torch.corrcoef(pairs)[0, 1].item()
    assert close["projected"] > 0.8
    assert close["projected"] > close["fresh"] + 0.2


def test_a_tokenizer_of_another_kind_comes_along(tmp_path, monkeypatch):
    monkeypatch.setenv("GRAFTLAB_CACHE", str(tmp_path))
    spec = DraftModel(of=str(ASSET))
    ours, theirs = spec.load_tokenizer(), load_tokenizer(ASSET)
    assert ours.encode_text(["Salt Road"]) == theirs.encode_text(["Salt Road"])
    assert ours.template == theirs.template


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({}, r"needs model\.of=RUN"),
        ({"of": "x", "layers": 0}, r"model\.layers"),
    ],
)
def test_what_cannot_be_is_refused(keys, message):
    with pytest.raises(ConfigError, match=message):
        DraftModel(**keys)


def test_a_pattern_that_is_not_there_is_named(tmp_path: Path):
    with pytest.raises(ModelError, match=r"model\.of=.*nowhere"):
        DraftModel(of=str(tmp_path / "nowhere")).check()


def test_foreign_code_is_refused(qwen2_folder, tmp_path):
    config = json.loads((qwen2_folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoConfig": "x"}}))
    with pytest.raises(ModelError, match="brings code of its own"):
        DraftModel(of=str(tmp_path)).check()
