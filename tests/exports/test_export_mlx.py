"""`target=mlx`: names and shapes of mlx-lm, and where mlx is installed the logits of graftlab."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from afm_adapters import MINI, afm_run, hf_run, logits, random_state
from graftlab.errors import ConfigError, ModelError
from graftlab.exports.afm7 import adapter_name, base_config
from graftlab.exports.mlx import MLX, mlx_config, mlx_state
from graftlab.exports.source import Trained, load
from tolerance import assert_same

IDS = torch.randint(5, 200, (2, 9), generator=torch.Generator().manual_seed(3))


def exported(run: Path, folder: Path) -> Path:
    folder.mkdir()
    target, adapter = MLX(with_base=True), load(str(run))
    target.check(adapter)
    target.write(adapter, folder)
    assert len(target.verify(adapter, folder)) == 2
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("lora", [{}, {"alpha": 3.0}, {"targets": ["q_proj", "up_proj"]}])
def test_afm7_gives_tamms_logits(lora, tmp_path):
    pytest.importorskip("mlx_lm")
    pytest.importorskip("tamm")
    run = afm_run(tmp_path / "made", **lora)
    folder = exported(run, tmp_path / "mlx")
    check_logits(run, folder)


@pytest.mark.slow
@pytest.mark.parametrize("lora", [{}, {"dora": True}, {"rslora": True}, {"layers": 1}])
@pytest.mark.parametrize("kind", ["qwen2", "llama"])
def test_a_hugging_face_adapter_gives_the_same_logits(lora, kind, tmp_path):
    pytest.importorskip("mlx_lm")
    run = hf_run(tmp_path / "made", kind, **lora)
    folder = exported(run, tmp_path / "mlx")
    check_logits(run, folder)
    check_logits(run, folder, with_mlx_lms_own=True)


def check_logits(run: Path, folder: Path, *, with_mlx_lms_own: bool = False) -> None:
    import mlx.core as mx
    import numpy as np
    from mlx_lm.tuner.utils import load_adapters
    from mlx_lm.utils import load_model

    from graftlab.exports.mlx import load_adapter

    wanted = logits(run, IDS).numpy()
    model, _ = load_model(folder / "base")
    alone = np.array(model(mx.array(IDS.numpy())))
    (load_adapters if with_mlx_lms_own else load_adapter)(model, str(folder))
    answer = np.array(model(mx.array(IDS.numpy())))
    assert_same(torch.from_numpy(answer), torch.from_numpy(wanted))
    assert np.abs(alone - wanted).max() > 0.01, "the adapter counts"


@pytest.mark.slow
def test_another_model_is_refused(tmp_path):
    mlx_lm = pytest.importorskip("mlx_lm.utils")
    from graftlab.exports.mlx import load_adapter

    folder = exported(hf_run(tmp_path / "made"), tmp_path / "mlx")
    weights = folder / "adapters.safetensors"
    from safetensors.torch import load_file, save_file

    state = {name.replace("layers.0", "layers.7"): t for name, t in load_file(weights).items()}
    save_file(state, weights)
    model, _ = mlx_lm.load_model(folder / "base")
    with pytest.raises(ModelError, match=r"does not fit this model: model\.layers\.7"):
        load_adapter(model, folder)


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
    made = mlx_state(Trained(Path("run"), state, {"alpha": 3}))
    for name, tensor in state.items():
        assert torch.equal(made[adapter_name(name)], tensor)
    config = mlx_config(Trained(Path("run"), state, {"alpha": 3}))
    assert config["lora_parameters"]["scale"] == 0.75
    assert config["num_layers"] == -1, "all layers"


def test_a_hugging_face_adapter_is_transposed(tmp_path):
    adapter = load(str(hf_run(tmp_path, rslora=True)))
    made = mlx_state(adapter)
    name = "model.layers.1.mlp.up_proj"
    for half, leaf in (("A", "lora_a"), ("B", "lora_b")):
        weight = adapter.state[f"base_model.model.{name}.lora_{half}.weight"]
        assert torch.equal(made[f"{name}.{leaf}"], weight.T)
    parameters = mlx_config(adapter)["lora_parameters"]
    assert parameters["scale"] == 8 / 4**0.5, "rsLoRA divides by the root"
    assert "mlp.up_proj" in parameters["keys"]


def test_rope_theta_is_put_where_mlx_lm_reads_it(tmp_path):
    run = hf_run(tmp_path / "made")
    source = json.loads((tmp_path / "made" / "qwen2" / "config.json").read_text())
    assert "rope_theta" not in source, "else there is nothing to mend"
    (note,) = MLX().check(load(str(run)))
    assert "with_base=true" in note
    folder = exported(run, tmp_path / "mlx")
    config = json.loads((folder / "base" / "config.json").read_text())
    assert config["rope_theta"] == source["rope_parameters"]["rope_theta"]


def test_config_of_afm7_fills_in_tamms_defaults():
    config = base_config({"num_layers": 4, "adapters": {}})
    assert config["rope_theta"] == 500_000.0, "mlx-lm's own default is another"
    assert (config["model_type"], config["num_layers"], config["hidden_dim"]) == ("afm7", 4, 2048)


@pytest.mark.parametrize(
    ("lora", "message"),
    [
        ({"modules_to_save": ["norm"]}, "mlx-lm has no modules_to_save|not a LoRA matrix"),
        ({"targets": ["q_proj", "lm_head"]}, "not a LoRA matrix in a decoder layer"),
    ],
)
@pytest.mark.filterwarnings("ignore:Model has .tie_word_embeddings:UserWarning")
def test_what_mlx_lm_cannot_hold_is_refused(lora, message, tmp_path):
    with pytest.raises(ModelError, match=message):
        MLX().check(load(str(hf_run(tmp_path, **lora))))


def test_a_base_that_is_gone_is_asked_for(tmp_path):
    run = hf_run(tmp_path / "made")
    shutil.rmtree(tmp_path / "made" / "qwen2")
    adapter = load(str(run))
    assert MLX().check(adapter) == []
    with pytest.raises(ConfigError, match="with_base=true needs the base"):
        MLX(with_base=True).check(adapter)
