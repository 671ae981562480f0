"""Apple's model in mlx-lm's `afm7`: names, shapes, and where mlx is installed its logits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from afm_adapters import MINI, afm_run, random_state
from graftlab.apple.exports.afm7 import adapter_name, base_config
from graftlab.apple.exports.source import TrainedAFM
from graftlab.exports.mlx import in_mlx, mlx_config
from mlx_exports import check_logits, exported


@pytest.mark.slow
@pytest.mark.parametrize("lora", [{}, {"alpha": 3.0}, {"targets": ["q_proj", "up_proj"]}])
def test_afm7_gives_tamms_logits(lora, tmp_path):
    pytest.importorskip("mlx_lm")
    pytest.importorskip("tamm")
    run = afm_run(tmp_path / "made", **lora)
    folder = exported(run, tmp_path / "mlx")
    check_logits(run, folder)


def test_names_of_afm7():
    names = {adapter_name(slot.name) for slot in MINI.slots()}
    assert len(names) == len(list(MINI.slots()))
    assert {
        "model.layers.1.self_attn.qkv_proj.lora_a.0",
        "model.layers.0.self_attn.qkv_proj.lora_b.2",
        "model.layers.0.self_attn.out_proj.lora_a",
        "model.kv_reuse_layers.1.self_attn.q_proj.lora_b",
        "model.kv_reuse_layers.0.mlp.gate_proj.lora_a",
        "model.layers.0.mlp.down_proj.lora_b",
    } <= names


def test_an_afm_adapter_keeps_its_shapes_and_values():
    """tamm and MLX both keep the matrices transposed, and rotate the same pairs."""
    state = random_state()
    adapter = TrainedAFM(Path("run"), state, {"alpha": 3})
    made = in_mlx(adapter).state
    for name, tensor in state.items():
        assert torch.equal(made[adapter_name(name)], tensor)
    config = mlx_config(adapter)
    assert config["lora_parameters"]["scale"] == 0.75
    assert config["num_layers"] == -1, "all layers"


def test_config_of_afm7_fills_in_tamms_defaults():
    config = base_config({"num_layers": 4, "adapters": {}})
    assert config["rope_theta"] == 500_000.0, "mlx-lm's own default is another"
    assert (config["model_type"], config["num_layers"], config["hidden_dim"]) == ("afm7", 4, 2048)
