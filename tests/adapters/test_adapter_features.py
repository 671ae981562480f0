"""Adapters that PEFT made, with its features: loaded with PEFT's own logits, or refused by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from graftlab.adapters.artifact import find_artifact
from graftlab.adapters.base import CONFIG, WEIGHTS
from graftlab.adapters.features import PLAIN
from graftlab.adapters.lora import Lora
from graftlab.adapters.peft import attach, load_adapter
from graftlab.errors import ConfigError, ModelError
from graftlab.exports.source import load as load_for_export
from graftlab.models.base import Base
from miniatures import build, flat_batch

MakeBase = Callable[..., Base]
BATCH = flat_batch([30])
QV = ["q_proj", "v_proj"]
pytestmark = [
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Model has .tie_word_embeddings:UserWarning"),
    pytest.mark.filterwarnings("ignore:Setting .save_embedding_layers:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*ensure_weight_tying:UserWarning"),
    pytest.mark.filterwarnings("ignore:Adapter .default.*lora_B.bias"),  # PEFT's own mistake
    pytest.mark.filterwarnings("ignore:lora with eva:UserWarning"),
    pytest.mark.filterwarnings("ignore:Could not find a config file:UserWarning"),
]


def made_by_peft(folder: Path, config: Any) -> Any:
    """An adapter on the miniature, its weights moved, saved by PEFT; returns PEFT's model."""
    from peft import get_peft_model

    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = get_peft_model(build("qwen2"), config)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.05)
        model.save_pretrained(folder)
    return model.eval()


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    """Of our base, or of PEFT's model."""
    if isinstance(model, Base):
        return model.logits(model.hidden(BATCH)[0])
    return model(BATCH.input_ids).logits[0]


LOADED: dict[str, dict[str, Any]] = {
    "rank and alpha patterns": {
        "rank_pattern": {"q_proj": 2, "layers.1.self_attn.v_proj": 8},
        "alpha_pattern": {"v_proj": 32},
    },
    "some layers": {"layers_to_transform": [1], "layers_pattern": "layers"},
    "a pattern of names": {"target_modules": r".*\.1\.mlp\.(up|down)_proj"},
    "left out": {"target_modules": "all-linear", "exclude_modules": ["down_proj"]},
    "bias of B": {"lora_bias": True},
    "rslora and dora": {"use_rslora": True, "use_dora": True},
    "saved": {"modules_to_save": ["lm_head", "embed_tokens"]},
    "the head": {"target_modules": ["q_proj", "lm_head"]},
    "random": {"init_lora_weights": False},
    "eva": {"init_lora_weights": "eva", "eva_config": {"rho": 1.0}, "rank_pattern": {"q_proj": 2}},
    "no task": {"task_type": None},
    "trained tokens": {"trainable_token_indices": [1, 200]},
    "trained tokens of a named layer": {"trainable_token_indices": {"embed_tokens": [7]}},
}


@pytest.mark.parametrize("name", LOADED)
def test_features_that_are_supported_have_pefts_logits(
    name: str, make_base: MakeBase, tmp_path: Path
) -> None:
    from peft import LoraConfig

    fields = {"r": 4, "lora_alpha": 8, "target_modules": QV, "task_type": "CAUSAL_LM"}
    theirs = logits(made_by_peft(tmp_path, LoraConfig(**{**fields, **LOADED[name]})))
    base = make_base()
    alone = logits(base)
    adapter = load_adapter(base, find_artifact(str(tmp_path)).require_adapter())
    assert (theirs - alone).abs().max() > 1e-2
    torch.testing.assert_close(logits(base), theirs, atol=3e-5, rtol=1e-4)
    adapter.detach()
    assert torch.equal(logits(base), alone)


def test_every_field_of_pefts_config_is_known_or_refused(tmp_path: Path) -> None:
    from dataclasses import fields

    from peft import LoraConfig

    for field in fields(LoraConfig):
        assert field.name in PLAIN or not getattr(LoraConfig(), field.name), field.name


def _lora(**fields: Any) -> Callable[[], Any]:
    def config() -> Any:
        from peft import LoraConfig

        return LoraConfig(**{"r": 4, "target_modules": QV, "task_type": "CAUSAL_LM", **fields})

    return config


def _other(kind: str, **fields: Any) -> Callable[[], Any]:
    def config() -> Any:
        import peft

        return getattr(peft, kind)(task_type="CAUSAL_LM", **fields)

    return config


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "embedding": (_lora(target_modules=["embed_tokens"]), "LoRA on the embedding model.embed_tok"),
    "biases": (_lora(bias="lora_only"), "PEFT's bias=lora_only"),
    "parameters": (
        _lora(target_modules=[], target_parameters=["self_attn.q_proj.weight"]),
        "PEFT's target_parameters",
    ),
    "replication": (_lora(layer_replication=[(0, 2), (1, 2)]), "PEFT's layer_replication"),
    "activated": (_lora(alora_invocation_tokens=[5]), "PEFT's alora_invocation_tokens"),
    "pissa": (_lora(init_lora_weights="pissa"), "rewritten base"),
    "olora": (_lora(init_lora_weights="olora"), "rewritten base"),
    "ia3": (
        _other("IA3Config", target_modules=QV, feedforward_modules=[]),
        "PEFT's IA3; only LORA is supported",
    ),
    "prompt": (_other("PromptTuningConfig", num_virtual_tokens=3), "PEFT's PROMPT_TUNING"),
    "oft": (_other("OFTConfig", target_modules=QV, oft_block_size=4), "PEFT's OFT"),
    "loha": (_other("LoHaConfig", target_modules=QV), "PEFT's LOHA"),
    "adalora": (
        _other("AdaLoraConfig", target_modules=QV, total_step=10, tinit=0, tfinal=0),
        "PEFT's ADALORA",
    ),
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", REFUSED)
def test_features_that_are_not_are_refused_by_name(
    name: str, make_base: MakeBase, tmp_path: Path
) -> None:
    config, said = REFUSED[name]
    made_by_peft(tmp_path, config())
    base = make_base()
    with pytest.raises(ModelError) as caught:
        load_adapter(base, find_artifact(str(tmp_path)).require_adapter())
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert base.adapter is None
    if name != "embedding":
        with pytest.raises(ModelError, match=said):
            load_for_export(str(tmp_path))


def rewrite(folder: Path, **fields: Any) -> None:
    file = folder / CONFIG
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))


def test_fields_of_a_later_peft(make_base: MakeBase, tmp_path: Path) -> None:
    theirs = logits(made_by_peft(tmp_path, _lora()()))
    rewrite(tmp_path, use_nothing=False, fancy_config=None)
    base = make_base()
    load_adapter(base, find_artifact(str(tmp_path)).require_adapter())
    torch.testing.assert_close(logits(base), theirs, atol=3e-5, rtol=1e-4)
    base.reset()
    for fields, said in (
        ({"fancy_config": {"x": 1}}, "PEFT's fancy_config is not supported"),
        ({"fancy_config": None, "peft_type": "FANCY"}, "PEFT's FANCY"),
        ({"peft_type": "LORA", "task_type": "SEQ_CLS"}, "trained for SEQ_CLS"),
        ({"task_type": None, "layers_pattern": "layers"}, "is damaged"),
    ):
        rewrite(tmp_path, **fields)
        with pytest.raises(ModelError, match=said):
            load_adapter(base, find_artifact(str(tmp_path)).require_adapter())


def test_a_resized_embedding_is_refused(make_base: MakeBase, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    made_by_peft(tmp_path, _lora()())
    tensors = load_file(tmp_path / WEIGHTS)
    name, base = "base_model.model.model.embed_tokens.weight", make_base()
    for rows, said in ((403, "for tokens that were added"), (400, "of its own")):
        save_file({**tensors, name: torch.ones(rows, 64)}, tmp_path / WEIGHTS)
        with pytest.raises(ModelError, match=f"embed_tokens of .*{said}|embed_tokens {said}"):
            load_adapter(base, find_artifact(str(tmp_path)).require_adapter())


def test_what_no_key_can_say_is_not_dropped_when_training_goes_on(
    make_base: MakeBase, tmp_path: Path
) -> None:
    made_by_peft(tmp_path, _lora(lora_alpha=8, lora_bias=True)())
    asked = Lora(rank=4, alpha=8, targets=QV, from_run=str(tmp_path))
    with pytest.raises(ConfigError, match=r"lora\.from=.*lora_bias is not supported"):
        attach(make_base(), asked, seed=0, dtype=torch.float32)


def test_a_pickled_adapter_says_how_to_convert_it(make_base: MakeBase, tmp_path: Path) -> None:
    made_by_peft(tmp_path, _lora()())
    (tmp_path / WEIGHTS).rename(tmp_path / "adapter_model.bin")
    source = find_artifact(str(tmp_path)).require_adapter()
    for read in (source.tensors, source.base_fingerprint):
        with pytest.raises(ModelError, match="is a pickle"):
            read()
