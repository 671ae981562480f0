"""`target=peft`: plain PEFT gives the logits that graftlab gives, on a Hugging Face base."""

from __future__ import annotations

import pytest
import torch

from afm_adapters import hf_run, logits
from graftlab.errors import ModelError
from graftlab.exports.peft import Peft
from graftlab.exports.source import Trained
from peft_exports import IDS, exported
from tolerance import assert_same

pytestmark = [
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Model has .tie_word_embeddings:UserWarning"),
]


@pytest.mark.parametrize(
    ("source", "lora"),
    [
        ("run", {}),
        ("run", {"dora": True}),
        ("run", {"modules_to_save": ["norm"]}),
        ("run", {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"v_proj": 9.0}}),
        ("checkpoint", {"trainable_tokens": ["!"]}),
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
