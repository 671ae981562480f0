"""`target=merged`: one folder that says in plain transformers what base and adapter say here."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import miniatures
from afm_adapters import hf_run, logits
from graftlab.adapters.artifact import find_artifact
from graftlab.adapters.attach import load_adapter
from graftlab.errors import ConfigError, ModelError
from graftlab.exports import changes
from graftlab.exports.merged import Merged
from graftlab.exports.mlx_base import HFFolder
from graftlab.exports.source import load
from graftlab.models.hf import HFModel
from graftlab.models.quantization.int8 import Int8
from graftlab.models.weights import INDEX
from merged_exports import IDS, exported, plain_logits, tensors_in
from packed_folders import packed_folder
from tolerance import assert_same

pytestmark = [
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Model has .tie_word_embeddings:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*tie_word_embeddings=True.*:UserWarning"),
    pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False:UserWarning"),
]

KINDS = {
    "lora": {},
    "DoRA": {"dora": True},
    "rsLoRA": {"rslora": True},
    "patterns": {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"v_proj": 9.0}},
    "some layers": {"layers": 1, "targets": ["q_proj", "down_proj"]},
    "a module": {"modules_to_save": ["norm"]},
    "tokens": {"trainable_tokens": ["!", "?"]},
    "a tied head": {"targets": ["q_proj", "lm_head"]},
    "a tied head in full": {"modules_to_save": ["lm_head"]},
    "a tied embedding in full": {"modules_to_save": ["embed_tokens"]},
}


def some(quick: tuple[str, ...], *rest: str) -> list[Any]:
    """The kinds that differ in what is computed, and `rest`, of which others say as much: slow."""
    return [*quick, *(pytest.param(kind, marks=pytest.mark.slow) for kind in rest)]


UNTIED = ("a tied head", "a tied head in full", "a tied embedding in full")


@pytest.mark.parametrize(
    "kind", some(tuple(k for k in KINDS if k not in ("lora", "rsLoRA")), "lora", "rsLoRA")
)
def test_it_says_what_base_and_adapter_say(kind: str, tmp_path: Path) -> None:
    run = hf_run(tmp_path / "made", **KINDS[kind])
    base = tmp_path / "made" / "qwen2"
    folder = exported(run, tmp_path / "merged")
    wanted = logits(run, IDS)
    assert_same(plain_logits(folder), wanted)
    assert (plain_logits(base) - wanted).abs().max() > 0.01, "the adapter counts"
    assert (folder / "model.safetensors").is_file()
    config = json.loads((folder / "config.json").read_text())
    assert config["tie_word_embeddings"] is (kind not in UNTIED)
    new = tensors_in(folder).keys() - tensors_in(base).keys()
    assert new == ({"lm_head.weight"} if kind in UNTIED else set())


@pytest.mark.parametrize("kind", some(("DoRA", "patterns"), "lora", "rsLoRA", "tokens"))
def test_it_holds_the_numbers_of_pefts_own_merge(kind: str, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    run = hf_run(tmp_path / "made", **KINDS[kind])
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "made" / "qwen2", dtype=torch.float32)
    merged = PeftModel.from_pretrained(base, str(run / "adapter")).merge_and_unload()
    wanted = {name: p.detach() for name, p in merged.named_parameters()}
    found = tensors_in(exported(run, tmp_path / "merged"))
    assert found.keys() == wanted.keys()
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, wanted[name], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", some(("DoRA", "a module"), "lora", "tokens"))
def test_a_strength_is_that_of_sampling(kind: str, tmp_path: Path) -> None:
    run = hf_run(tmp_path / "made", **KINDS[kind])
    base = HFModel(path=str(tmp_path / "made" / "qwen2"))
    loaded = base.load(dtype=torch.float32, device=torch.device("cpu"))
    adapter = load_adapter(loaded, find_artifact(str(run)).require_adapter())
    with torch.no_grad(), adapter.scaled(0.5):
        wanted = torch.cat([loaded.own_logits(row[None]) for row in IDS])
    assert_same(plain_logits(exported(run, tmp_path / "soft", strength=0.5)), wanted)
    assert (logits(run, IDS) - wanted).abs().max() > 0.01, "the strength counts"


@pytest.mark.parametrize(
    "kind", some(("qwen3_moe", "lfm2", "nemotron_h"), "llama", "gemma3", "mamba2")
)
def test_names_that_transformers_changes_are_found_in_the_files(kind: str, tmp_path: Path) -> None:
    run = hf_run(tmp_path / "made", kind, targets="auto")
    base = tmp_path / "made" / kind
    folder = exported(run, tmp_path / "merged")
    before, after = tensors_in(base), tensors_in(folder)
    assert before.keys() == after.keys()
    config = json.loads((run / "adapter" / "adapter_config.json").read_text())
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {
        name for name in before
        if name.removesuffix(".weight").endswith(tuple(config["target_modules"]))
    }  # fmt: skip
    assert (plain_logits(folder) - plain_logits(base)).abs().max() > 0.01
    if kind == "nemotron_h":
        assert any(name.startswith("backbone.") for name in changed), "loaded as model."


def test_matrices_that_lie_the_other_way_round_are_transposed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    monkeypatch.setitem(miniatures.KINDS, "gpt2", ("GPT2Config", "GPT2LMHeadModel", {}))
    for dora in (False, True):
        made = tmp_path / str(dora)
        run = hf_run(made, "gpt2", targets=["c_attn", "c_proj", "c_fc"], dora=dora)
        folder = exported(run, made / "merged")
        base = AutoModelForCausalLM.from_pretrained(made / "gpt2")
        with torch.no_grad():
            alone = base(input_ids=IDS).logits
            wanted = PeftModel.from_pretrained(base, str(run / "adapter"))(input_ids=IDS).logits
        assert_same(plain_logits(folder), wanted)
        assert (alone - wanted).abs().max() > 0.01


def test_blocks_of_rows_give_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = hf_run(tmp_path / "made", dora=True)
    whole = tensors_in(exported(run, tmp_path / "whole"))
    monkeypatch.setattr(changes, "BLOCK", 64 * 7)
    assert changes.BLOCK // 64 < 64, "a matrix has several blocks, and the last is shorter"
    parts = tensors_in(exported(run, tmp_path / "parts"))
    for name, tensor in whole.items():
        torch.testing.assert_close(parts[name], tensor, rtol=1e-6, atol=1e-6)


def test_shards_stay_as_they_are(tmp_path: Path) -> None:
    run = hf_run(tmp_path / "made", targets=["q_proj", "lm_head"])
    whole = tensors_in(exported(run, tmp_path / "whole"))
    base = tmp_path / "made" / "qwen2"
    HFModel(path=str(base)).load(
        dtype=torch.float32, device=torch.device("cpu")
    ).model.save_pretrained(base, max_shard_size="100KB")
    (base / "model.safetensors").unlink()
    names = {file.name for file in base.glob("*.safetensors")}
    assert len(names) > 3
    folder = exported(run, tmp_path / "merged")
    assert {file.name for file in folder.glob("*.safetensors")} == names
    index, before = (json.loads((place / INDEX).read_text()) for place in (folder, base))
    places = index["weight_map"]
    assert places.pop("lm_head.weight") == places["model.embed_tokens.weight"]
    assert places == before["weight_map"]
    found = tensors_in(folder)
    assert index["metadata"]["total_size"] == sum(t.nbytes for t in found.values())
    assert index["metadata"]["total_parameters"] == sum(t.numel() for t in found.values())
    assert found.keys() == whole.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in whole.items())


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_sums_are_rounded_once(dtype: str, tmp_path: Path) -> None:
    run = hf_run(tmp_path / "made")
    exact = tensors_in(exported(run, tmp_path / "exact"))
    folder = exported(run, tmp_path / "rounded", dtype=dtype)
    kind = {"bf16": torch.bfloat16, "fp16": torch.float16}[dtype]
    for name, tensor in tensors_in(folder).items():
        assert torch.equal(tensor, exact[name].to(kind))
    assert json.loads((folder / "config.json").read_text())["dtype"] == str(kind)[6:]


def test_auto_keeps_the_types_of_the_base(tmp_path: Path) -> None:
    run = hf_run(tmp_path / "made")
    exact = tensors_in(exported(run, tmp_path / "exact"))
    file = tmp_path / "made" / "qwen2" / "model.safetensors"
    mixed = {n: t if "norm" in n else t.bfloat16() for n, t in load_file(file).items()}
    save_file(mixed, file, metadata={"format": "pt"})
    _rebased(run)
    for name, tensor in tensors_in(exported(run, tmp_path / "merged")).items():
        assert tensor.dtype == mixed[name].dtype
        assert (tensor.float() - exact[name]).abs().max() <= exact[name].abs().max() / 64


def test_what_half_precision_cannot_hold_is_refused(tmp_path: Path) -> None:
    run = hf_run(tmp_path / "made")
    file = run / "adapter" / "adapter_model.safetensors"
    name = "base_model.model.model.layers.1.mlp.up_proj.lora_B.weight"
    state = load_file(file)
    state[name] = state[name] * 1e8
    save_file(state, file, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"layers\.1\.mlp\.up_proj\.weight: .* values do not fit"):
        exported(run, tmp_path / "merged", dtype="fp16")
    assert plain_logits(exported(run, tmp_path / "bf16", dtype="bf16")).isnan().sum() == 0


def test_licences_of_the_base_come_along(tmp_path: Path) -> None:
    run = hf_run(tmp_path / "made")
    base = tmp_path / "made" / "qwen2"
    (base / "LICENSE").write_text("terms")
    (base / "LICENSES").mkdir()
    folder = exported(run, tmp_path / "merged")
    assert (folder / "LICENSE").read_text() == "terms"


def test_replies_end_where_they_ended_in_training(tmp_path: Path) -> None:
    run = hf_run(tmp_path / "made")
    base = tmp_path / "made" / "qwen2"
    settings = {"eos_token_id": 0, "temperature": 0.6, "do_sample": True}
    derived = {**settings, "_from_model_config": True}
    (base / "generation_config.json").write_text(json.dumps(derived))
    template = (run / "adapter" / "chat_template.jinja").read_text() + "{# as trained #}"
    (run / "adapter" / "chat_template.jinja").write_text(template)
    (base / "LICENSE.txt").write_text("Terms.")
    folder = exported(run, tmp_path / "merged")
    found = json.loads((folder / "generation_config.json").read_text())
    assert found == {**settings, "eos_token_id": [2, 0]}, "<|im_end|> is 2"
    assert (folder / "chat_template.jinja").read_text() == template
    assert (folder / "LICENSE.txt").read_text() == "Terms."
    assert HFModel(path=str(folder)).load_tokenizer().stop_ids == (2,)


@pytest.mark.parametrize("wrong", ["left over", "missing", "another shape"])
def test_every_tensor_of_the_adapter_is_used(wrong: str, tmp_path: Path) -> None:
    run = hf_run(tmp_path / "made")
    file = run / "adapter" / "adapter_model.safetensors"
    state = load_file(file)
    name = "base_model.model.model.layers.1.mlp.up_proj.lora_A.weight"
    if wrong == "left over":
        state[name.replace("layers.1", "layers.7")] = state[name].clone()
        named = "layers.7.mlp.up_proj.lora_A.weight is not part of it"
    elif wrong == "missing":
        del state[name]
        named = "layers.1.mlp.up_proj.lora_A.weight is missing"
    else:
        state[name] = state[name][:, :-1].contiguous()
        named = "layers.1.mlp.up_proj.lora_A.weight has shape"
    save_file(state, file, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=named):
        Merged().check(load(str(run)))


def test_copies_of_the_base_that_peft_saves_are_no_leftovers(tmp_path: Path) -> None:
    run = hf_run(tmp_path / "made", targets=["q_proj", "lm_head"])
    wanted = tensors_in(exported(run, tmp_path / "merged"))
    file = run / "adapter" / "adapter_model.safetensors"
    base = load_file(tmp_path / "made" / "qwen2" / "model.safetensors")
    copy = base["model.embed_tokens.weight"]
    with_copy = {**load_file(file), "base_model.model.model.embed_tokens.weight": copy}
    with_copy["base_model.model.lm_head.base_layer.weight"] = copy.clone()  # tied, and saved twice
    save_file(with_copy, file, metadata={"format": "pt"})
    found = tensors_in(exported(run, tmp_path / "again"))
    assert all(torch.equal(found[name], tensor) for name, tensor in wanted.items())
    save_file({**with_copy, "base_model.model.model.embed_tokens.weight": copy + 1}, file)
    with pytest.raises(ModelError, match="carries a model.embed_tokens.weight that is not"):
        Merged().check(load(str(run)))


def test_tensors_that_are_fused_on_loading_are_refused(tmp_path: Path) -> None:
    run = hf_run(tmp_path / "made", "qwen3_moe", targets="attn", modules_to_save=["mlp"])
    with pytest.raises(ModelError, match="computes from others in its files"):
        Merged().check(load(str(run)))


def test_other_bases_are_refused(tmp_path: Path) -> None:
    run = hf_run(tmp_path / "made")
    base = tmp_path / "made" / "qwen2"
    with pytest.raises(ModelError, match="is a whole model, not an adapter: target=merged"):
        Merged().check(load(str(base)))
    file = base / "model.safetensors"
    save_file({n: t + 1 for n, t in load_file(file).items()}, file, metadata={"format": "pt"})
    with pytest.raises(ModelError, match="was trained on another base"):
        Merged().check(load(str(run)))
    shutil.rmtree(base)
    with pytest.raises(ConfigError, match="target=merged needs the base"):
        Merged().check(load(str(run)))


class Coded(HFModel):
    """A base that computes with other weights than its files hold, and says so."""

    def fingerprint(self) -> str:
        return HFModel.fingerprint(self)[:-1] + "-"


def test_weights_that_are_not_those_of_the_files_are_not_merged(tmp_path: Path) -> None:
    run = hf_run(tmp_path / "made")
    base = str(tmp_path / "made" / "qwen2")
    Merged().check(load(str(run), HFModel(path=base)))
    with pytest.raises(ModelError, match="with other weights than its files hold"):
        Merged().check(load(str(run), Coded(path=base)))


def test_an_adapter_of_codes_is_not_merged(tmp_path: Path) -> None:
    run = hf_run(tmp_path / "made")
    base = tmp_path / "made" / "qwen2"
    packed, _ = packed_folder(base, tmp_path / "packed", "int8")
    for model in (HFModel(path=str(base), quantization=Int8()), HFModel(path=str(packed))):
        with pytest.raises(ModelError, match="stored in int8, and target=merged writes full-prec"):
            Merged().check(load(str(run), model))
    with pytest.raises(ModelError, match="stored in int8 by bitsandbytes, which mlx-lm does not"):
        HFFolder(packed).check(None)


def _rebased(run: Path) -> None:
    """Let the adapter name no base, as others' do."""
    file = run / "adapter" / "adapter_model.safetensors"
    save_file(load_file(file), file, metadata={"format": "pt"})
