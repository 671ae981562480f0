"""Targets resolved from file headers: per architecture, quickly, and with useful refusals."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from graftlab.adapters.lora import Lora
from graftlab.adapters.targets import check_targets, resolve_targets
from graftlab.errors import ConfigError

MakeMiniature = Callable[[str], Path]
SPLIT_ATTENTION = ["k_proj", "o_proj", "q_proj", "v_proj"]
SPLIT_MLP = ["down_proj", "gate_proj", "up_proj"]
EXPECTED = {
    "qwen2": (SPLIT_ATTENTION, SPLIT_MLP),
    "gemma2": (SPLIT_ATTENTION, SPLIT_MLP),
    "cohere": (SPLIT_ATTENTION, SPLIT_MLP),
    "granite": (SPLIT_ATTENTION, SPLIT_MLP),
    "phi3": (["o_proj", "qkv_proj"], ["down_proj", "gate_up_proj"]),
}


@pytest.mark.parametrize("kind", EXPECTED)
def test_presets_find_the_projections_of_each_architecture(
    kind: str, make_miniature: MakeMiniature
) -> None:
    folder = make_miniature(kind)
    attention, feed_forward = EXPECTED[kind]
    both = sorted(attention + feed_forward)
    assert resolve_targets(folder, Lora(targets="attn")).modules == attention
    for preset in ("attn-mlp", "auto", "all-linear"):
        assert resolve_targets(folder, Lora(targets=preset)).modules == both


def test_a_name_shared_with_another_module_is_said_in_full(make_miniature: MakeMiniature) -> None:
    found = resolve_targets(make_miniature("lfm2"), Lora(targets="attn")).modules
    assert "self_attn.out_proj" in found
    assert "out_proj" not in found


def test_the_last_layers(make_miniature: MakeMiniature) -> None:
    folder = make_miniature("qwen2")
    assert resolve_targets(folder, Lora()).layers is None
    assert resolve_targets(folder, Lora(layers=1)).layers == [1]
    with pytest.raises(ConfigError, match=r"lora\.layers=3: this model has 2 decoder layers"):
        check_targets(folder, Lora(layers=3))


def test_what_matches_nothing_is_refused_with_what_there_is(make_miniature: MakeMiniature) -> None:
    folder = make_miniature("qwen2")
    with pytest.raises(ConfigError, match=r"lora\.targets: q_porj .*`q_proj`.*down_proj.*lm_head"):
        check_targets(folder, Lora(targets=["v_proj", "q_porj"]))
    with pytest.raises(ConfigError, match=r"lora\.modules_to_save=\[embed_tokens\]"):
        check_targets(folder, Lora(targets=["embed_tokens"]))
    with pytest.raises(ConfigError, match=r"lora\.modules_to_save: lm_haed .*`lm_head`"):
        check_targets(folder, Lora(modules_to_save=["lm_haed"]))
    with pytest.raises(ConfigError, match="lm_head matches no linear module of the chosen layers"):
        check_targets(folder, Lora(targets=["lm_head"], layers=1))
    with pytest.raises(ConfigError, match="input_layernorm matches no linear module"):
        check_targets(folder, Lora(targets=["input_layernorm"]))
    check_targets(folder, Lora(targets=["lm_head", "mlp.up_proj"], modules_to_save=["norm"]))


def test_the_check_imports_nothing_heavy(make_miniature: MakeMiniature) -> None:
    script = (
        "import sys, json\n"
        "from pathlib import Path\n"
        "from graftlab.adapters.lora import Lora\n"
        "from graftlab.adapters.targets import check_targets\n"
        "from graftlab.models.hf import HFModel\n"
        "from graftlab.models.tiny import TinyModel\n"
        f"spec = HFModel(path={str(make_miniature('qwen2'))!r})\n"
        "spec.check()\n"
        "check_targets(spec.folder(), Lora())\n"
        "heavy = {'torch', 'transformers', 'peft', 'numpy', 'safetensors', 'lightning'}\n"
        "print(json.dumps(sorted(heavy & set(sys.modules))))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == []
