"""`target=peft` of Apple's model: plain PEFT gives the logits that graftlab gives."""

from __future__ import annotations

import json

import pytest
import torch

from afm_adapters import afm_run, logits
from graftlab.apple.exports.source import TrainedAFM
from graftlab.errors import ModelError
from graftlab.exports.peft import Peft
from peft_exports import IDS, exported
from tolerance import assert_same

pytestmark = [
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Model has .tie_word_embeddings:UserWarning"),
]


@pytest.mark.parametrize(
    "lora", [{}, {"alpha": 3.0}, {"targets": ["q_proj", "v_proj", "down_proj"]}, {"layers": 3}]
)
def test_an_afm_adapter_in_plain_peft_gives_tamms_logits(lora, tmp_path):
    pytest.importorskip("tamm")
    from peft import PeftModel

    from graftlab.apple.exports.plain import PlainAFM
    from graftlab.apple.model import AFMModel

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
    from graftlab.apple.exports.plain import PlainAFM

    model = tamm_model()
    fused = model.layers.segment_0.layer_0.attention.qkv_transform.wrapped.fused_linear.weight
    plain = PlainAFM(model)
    parts = plain.model.layers.segment_0.layer_0.attention.qkv_transform
    assert parts.q_proj.weight.data_ptr() == fused.data_ptr()
    storages = {layer.weight.untyped_storage().data_ptr() for layer in parts.children()}
    assert storages == {fused.untyped_storage().data_ptr()}
    assert not any("adapters" in name for name, _ in plain.named_parameters())


def test_a_name_that_tamm_does_not_give_is_refused(tmp_path):
    strange = {"layers.segment_7.layer_0.x.adapters.base_adapter.a_transpose": torch.ones(4, 2)}
    with pytest.raises(ModelError, match="is no tensor of a LoRA adapter on an AFM"):
        Peft().check(TrainedAFM(tmp_path, strange))
