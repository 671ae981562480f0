"""`target=peft`: plain PEFT gives the logits that graftlab gives, on both kinds of base."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from afm_adapters import afm_run, hf_run, logits
from graftlab.errors import ModelError
from graftlab.exports.peft import Peft
from graftlab.exports.source import Trained, load
from tolerance import assert_same

pytestmark = [
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Model has .tie_word_embeddings:UserWarning"),
]
IDS = torch.randint(5, 200, (2, 9), generator=torch.Generator().manual_seed(3))


def exported(run: Path, folder: Path) -> Path:
    folder.mkdir()
    target, adapter = Peft(), load(str(run))
    target.check(adapter)
    target.write(adapter, folder)
    assert "tensors read back equal" in target.verify(adapter, folder)[0]
    return folder


@pytest.mark.parametrize(
    "lora", [{}, {"alpha": 3.0}, {"targets": ["q_proj", "v_proj", "down_proj"]}, {"layers": 3}]
)
def test_an_afm_adapter_in_plain_peft_gives_tamms_logits(lora, tmp_path):
    pytest.importorskip("tamm")
    from peft import PeftModel

    from graftlab.apple.model import AFMModel
    from graftlab.exports.plain import PlainAFM

    run = afm_run(tmp_path / "made", **lora)
    folder = exported(run, tmp_path / "peft")
    wanted = logits(run, IDS)
    base = AFMModel(path=str(tmp_path / "made" / "assets")).load(
        dtype=torch.float32, device=torch.device("cpu")
    )
    plain = PlainAFM(base.model)
    with torch.no_grad():
        alone = plain(IDS).logits
        model = PeftModel.from_pretrained(plain, str(folder))
        answer = model(IDS).logits
    assert_same(answer, wanted)
    assert (alone - wanted).abs().max() > 0.05, "the adapter counts"


def test_all_linears_are_named_by_their_ends(tmp_path):
    pytest.importorskip("tamm")
    folder = exported(afm_run(tmp_path / "made"), tmp_path / "peft")
    config = json.loads((folder / "adapter_config.json").read_text())
    assert "run.yaml" not in {file.name for file in folder.iterdir()}, "that is of tamm's format"
    assert config["target_modules"] == [
        "attention.output_transform",
        "attention.q_transform",
        "attention.qkv_transform.k_proj",
        "attention.qkv_transform.q_proj",
        "attention.qkv_transform.v_proj",
        "feed_forward.hidden_transform.linear_0",
        "feed_forward.hidden_transform.linear_1",
        "feed_forward.output_transform",
    ]


def test_splitting_the_projections_copies_no_weight(tmp_path):
    pytest.importorskip("tamm")
    from afm_adapters import tamm_model
    from graftlab.exports.plain import PlainAFM

    model = tamm_model()
    fused = model.layers.segment_0.layer_0.attention.qkv_transform.wrapped.fused_linear.weight
    plain = PlainAFM(model)
    parts = plain.model.layers.segment_0.layer_0.attention.qkv_transform
    assert parts.q_proj.weight.data_ptr() == fused.data_ptr()
    storages = {layer.weight.untyped_storage().data_ptr() for layer in parts.children()}
    assert storages == {fused.untyped_storage().data_ptr()}
    assert not any("adapters" in name for name, _ in plain.named_parameters())


@pytest.mark.parametrize(
    ("source", "lora"),
    [
        ("run", {}),
        ("run", {"dora": True}),
        ("run", {"modules_to_save": ["norm"]}),
        ("checkpoint", {"rslora": True}),
    ],
)
def test_a_hugging_face_run_is_loaded_by_plain_peft(lora, source, tmp_path):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    run = hf_run(tmp_path / "made", **lora)
    named = run if source == "run" else run / "checkpoints" / "last.ckpt"
    folder = exported(named, tmp_path / "peft")
    wanted = logits(run, IDS)
    base = AutoModelForCausalLM.from_pretrained(str(tmp_path / "made" / "qwen2"))
    with torch.no_grad():
        alone = base(input_ids=IDS).logits
        answer = PeftModel.from_pretrained(base, str(folder))(input_ids=IDS).logits
    assert_same(answer, wanted)
    assert (alone - wanted).abs().max() > 0.01, "the adapter counts"
    if source == "run":
        assert {"tokenizer.json", "chat_template.jinja"} <= {f.name for f in folder.iterdir()}
        for file in (run / "adapter").iterdir():
            assert (folder / file.name).read_bytes() == file.read_bytes()


def test_what_is_no_lora_is_refused(tmp_path):
    state = {"base_model.model.model.layers.0.ia3_l": torch.ones(4)}
    with pytest.raises(ModelError, match="no LoRA weights under PEFT's names"):
        Peft().check(Trained(tmp_path, state))
    strange = {"layers.segment_7.layer_0.x.adapters.base_adapter.a_transpose": torch.ones(4, 2)}
    with pytest.raises(ModelError, match="is no tensor of a LoRA adapter on an AFM"):
        Peft().check(Trained(tmp_path, strange))
