"""The miniature of Apple's model: what is built, that it learned, and what is shipped."""

from __future__ import annotations

import json
import math
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch

from demo_assets.afm import MiniRecipe, build_assets, heldout_loss, model_config
from demo_assets.tokenizer import train_afm_tokenizer
from graftlab.apple.model import ASSET, AFMMini, AFMModel
from graftlab.apple.tokenizer import INSTRUCTIONS, AFMTokenizer
from graftlab.cli.compose import build, compose
from graftlab.errors import ConfigError
from graftlab.text.load import load_tokenizer
from graftlab.types import Message
from graftlab.verbs.inspect import look

pytest.importorskip("tamm")

MICRO = MiniRecipe(
    steps=24, vocabulary=400, sample_documents=60, hidden=32, layers=4, heads=2, kv_heads=1,
    rank=4, alpha=2, context=128, row_length=64, step_tokens=512, warmup_steps=4,
    heldout_tokens=1024,
)  # fmt: skip
FILES = ["base-model-config.json", "base-model.pt", "recipe.json", "tokenizer.model"]


@pytest.fixture(scope="module")
def micro(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("micro")
    build_assets(folder, MICRO)
    return folder


def loaded(folder: Path) -> Any:
    """The folder's model as a toolkit's is loaded: by tamm alone, every tensor named."""
    from tamm.utils import json as tamm_json

    config = tamm_json.loads((folder / "base-model-config.json").read_text())
    model = config.create_model()
    state = torch.load(folder / "base-model.pt", weights_only=True)
    model.load_state_dict(state, strict=True)
    return model.eval()


def test_the_folder_has_the_layout_of_the_toolkits_assets(micro: Path):
    assert sorted(path.name for path in micro.iterdir()) == FILES
    model = loaded(micro)
    names = [name for name, _ in model.named_parameters()]
    adapters = [name for name in names if "adapter" in name]
    # q, k, v, output, gate, up, down of two layers; no k and v in the two that reuse them.
    assert len(adapters) == 2 * 2 * 7 + 2 * 2 * 5
    assert "layers.segment_1.layer_1.attention.q_transform.wrapped.weight" in names
    assert model.layers.segment_0.layer_0.attention.qk_norm.query_norm.weight.shape == (16,)
    state = model.state_dict()
    assert all(not tensor.any() for name, tensor in state.items() if name.endswith("b_transpose"))
    seen = [tensor for name, tensor in state.items() if name.endswith("num_samples")]
    assert len(seen) == 4
    assert min(map(int, seen)) > 0, "the quantisers have seen keys and values"


def test_what_is_saved_is_what_was_trained(micro: Path):
    facts = json.loads((micro / "recipe.json").read_text())
    assert MiniRecipe(**facts["recipe"]) == MICRO
    tokenizer = load_tokenizer(micro)
    assert isinstance(tokenizer, AFMTokenizer)
    model = loaded(micro)
    assert facts["parameters"] == sum(p.numel() for p in model.parameters())
    loss = heldout_loss(model, tokenizer, MICRO)
    assert loss == pytest.approx(facts["heldout_loss"], abs=1e-3)
    fresh = model_config(MICRO, adapters=True).create_model().eval()
    assert loss < heldout_loss(fresh, tokenizer, MICRO) - 0.5
    assert loss < math.log(MICRO.vocabulary) - 0.5


def test_the_same_recipe_gives_the_same_bytes(micro: Path, tmp_path: Path):
    before = torch.random.get_rng_state()
    steps: list[tuple[int, int]] = []
    build_assets(tmp_path, MICRO, on_step=lambda step, total, loss: steps.append((step, total)))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert steps == [(step, 24) for step in range(1, 25)]
    for name in FILES:
        assert (tmp_path / name).read_bytes() == (micro / name).read_bytes(), name


def test_texts_of_training_are_conversations_of_the_template(micro: Path):
    from demo_assets.afm import token_stream

    tokenizer = load_tokenizer(micro)
    assert isinstance(tokenizer, AFMTokenizer)
    stream = token_stream(tokenizer, MICRO, "train", 30_000).tolist()
    end = tokenizer.stop_ids[-1]
    opening = tokenizer.render([Message("user", "Hi")], generation_prompt=False)[:4]
    starts = [k for k, token in enumerate(stream) if token == end]
    chats = [k for k in starts if stream[k : k + 4] == opening]
    assert 0.2 < len(chats) / len(starts) < 0.8
    assert stream[0] == end


@pytest.fixture(scope="module")
def shipped() -> dict[str, Any]:
    return json.loads((ASSET / "recipe.json").read_text())


def test_the_shipped_folder_is_of_the_recipe(shipped: dict[str, Any]):
    assert sorted(path.name for path in ASSET.iterdir()) == FILES
    assert MiniRecipe(**shipped["recipe"]) == MiniRecipe()
    assert set(shipped["recipe"]) == {field.name for field in fields(MiniRecipe)}
    fresh = model_config(MiniRecipe(), adapters=True).create_model()
    model = loaded(ASSET)
    assert {name: p.shape for name, p in model.named_parameters()} == {
        name: p.shape for name, p in fresh.named_parameters()
    }
    assert shipped["parameters"] == sum(p.numel() for p in model.parameters())
    assert 1_000_000 < shipped["parameters"] < 3_000_000


def test_the_shipped_tokenizer_is_what_training_makes():
    recipe = MiniRecipe()
    made = train_afm_tokenizer(
        recipe.seed, vocabulary=recipe.vocabulary, sample=recipe.sample_documents
    )
    assert made == (ASSET / "tokenizer.model").read_bytes()


def test_the_shipped_weights_predict_as_recorded(shipped: dict[str, Any]):
    tokenizer = load_tokenizer(ASSET)
    assert isinstance(tokenizer, AFMTokenizer)
    loss = heldout_loss(loaded(ASSET), tokenizer, MiniRecipe())
    assert loss == pytest.approx(shipped["heldout_loss"], rel=0.01)
    assert loss < 2.1 < 0.3 * math.log(MiniRecipe().vocabulary)


def test_no_adapter_is_in_what_is_shipped():
    state = torch.load(ASSET / "base-model.pt", weights_only=True)
    backs = [tensor for name, tensor in state.items() if name.endswith("b_transpose")]
    assert len(backs) == 4 * 7 + 2 * 5
    assert not any(tensor.any() for tensor in backs)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_whole_recipe_learns(tmp_path: Path):
    facts = build_assets(tmp_path, MiniRecipe())
    assert facts["heldout_loss"] < 2.1  # 1.87 where it was made first
    assert 1_000_000 < facts["parameters"] < 3_000_000


def test_nothing_is_made_where_it_is_chosen(monkeypatch):
    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("the miniature is shipped")

    monkeypatch.setattr("demo_assets.course.learn", never)
    monkeypatch.setattr("demo_assets.afm.build_assets", never)
    spec = AFMMini(locale="pt_BR")
    spec.check()
    assert spec.on_disk
    base = spec.load(dtype=torch.float32, device=torch.device("cpu"))
    assert base.name == spec.name == "afm-mini"
    assert base.vocab_size == MiniRecipe().vocabulary
    tokenizer = spec.load_tokenizer()
    assert isinstance(tokenizer, AFMTokenizer)
    assert tokenizer.instruction == INSTRUCTIONS["pt_BR"]
    assert spec.fingerprint() == AFMModel(path=str(ASSET)).fingerprint()


def test_looking_at_data_reads_no_weights(monkeypatch):
    monkeypatch.setattr("torch.load", None)
    spec = build(compose("inspect", ["model=afm-mini", "data.limit=8"]))
    assert look(spec).budget.documents > 0


def test_it_is_planned_by_its_config():
    spec = AFMMini()
    counted = sum(math.prod(shape) for shape in spec.published.tensors().values())
    parameters = loaded(ASSET).named_parameters()
    assert counted == sum(p.numel() for name, p in parameters if "adapter" not in name)
    assert spec.published.reused_layers == MiniRecipe().kv_reuse_layers
    assert AFMModel().published != spec.published


def test_keys_that_cannot_be_are_told():
    with pytest.raises(ConfigError, match="ships with graftlab"):
        AFMMini(path="assets")
    with pytest.raises(ConfigError, match=r"model\.locale=pt_XX is not one of"):
        AFMModel(path="assets", locale="pt_XX")
    with pytest.raises(ConfigError, match=r"leave model\.template out"):
        AFMModel(path="assets", template="chatml", instruction="Be brief.")


def test_a_locale_of_ones_own_holds_over_the_saved_one(micro: Path, tmp_path: Path):
    AFMTokenizer(micro / "tokenizer.model", locale="de_DE").save(tmp_path)
    for name in ("base-model.pt", "base-model-config.json"):
        (tmp_path / name).write_bytes((micro / name).read_bytes())

    def instruction(**keys: Any) -> str:
        tokenizer = AFMModel(path=str(tmp_path), **keys).load_tokenizer()
        assert isinstance(tokenizer, AFMTokenizer)
        return tokenizer.instruction

    assert instruction() == INSTRUCTIONS["de_DE"]
    assert instruction(locale="pt_BR") == INSTRUCTIONS["pt_BR"]
    assert instruction(instruction="") == ""
    assert instruction(instruction="Be brief.") == "Be brief."
