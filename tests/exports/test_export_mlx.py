"""`target=mlx`: names and shapes of mlx-lm, and where mlx is installed the logits of graftlab."""

from __future__ import annotations

import json
import shutil
import sys

import numpy as np
import pytest
import torch

from afm_adapters import hf_run, logits
from graftlab.errors import ConfigError, ModelError
from graftlab.exports.mlx import MLX, in_mlx, load_adapter, mlx_config
from graftlab.exports.source import load
from mlx_exports import IDS, check_logits, exported
from tolerance import assert_same


@pytest.mark.slow
@pytest.mark.parametrize("lora", [{}, {"dora": True}, {"rslora": True}, {"layers": 1}])
@pytest.mark.parametrize("kind", ["qwen2", "llama"])
def test_a_hugging_face_adapter_gives_the_same_logits(lora, kind, tmp_path):
    pytest.importorskip("mlx_lm")
    run = hf_run(tmp_path / "made", kind, **lora)
    folder = exported(run, tmp_path / "mlx")
    check_logits(run, folder)
    check_logits(run, folder, with_mlx_lms_own=True)


@pytest.mark.slow
@pytest.mark.parametrize("bits", [4, 8])
def test_the_base_in_a_few_bits_keeps_the_adapter_apart(bits, tmp_path):
    """As graftlab has the adapter on those weights, widened."""
    pytest.importorskip("mlx_lm")
    import mlx.core as mx
    from mlx.utils import tree_flatten
    from mlx_lm.utils import load_model
    from safetensors.torch import load_file, save_file

    from graftlab.exports.mlx_quantized import compare_quantized

    run = hf_run(tmp_path / "made", "llama")
    folder = exported(run, tmp_path / "mlx", bits)
    model = load_adapter(load_model(folder / "base")[0], folder)
    names = dict(tree_flatten(model.parameters()))
    assert any(name.endswith("q_proj.linear.scales") for name in names)
    assert any(name.endswith("q_proj.lora_b") for name in names)

    codes = dict(mx.load(str(folder / "base" / "model.safetensors")))
    wide = tmp_path / "made" / "llama" / "model.safetensors"
    before = load_file(wide)
    for name in [name for name in codes if name.endswith(".scales")]:
        stem = name.removesuffix(".scales")
        parts = (codes[f"{stem}.weight"], codes[name], codes[f"{stem}.biases"])
        values = np.array(mx.dequantize(*parts, 64, bits).astype(mx.float32))
        assert not torch.equal(before[f"{stem}.weight"], torch.from_numpy(values))
        before[f"{stem}.weight"] = torch.from_numpy(values)
    save_file(before, wide, metadata={"format": "pt"})
    said = torch.from_numpy(np.array(model(mx.array(IDS.numpy()))))
    assert_same(said, logits(run, IDS))

    file = folder / "base" / "model.safetensors"
    state = dict(mx.load(str(file)))
    state["model.layers.1.mlp.up_proj.weight"] += 1
    mx.save_safetensors(str(file), state)
    with pytest.raises(ModelError, match=r"up_proj\.weight is further than a step"):
        compare_quantized(tmp_path / "made" / "llama", folder / "base")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"bits": 4}, r"add target\.with_base=true"),
        ({"bits": 3, "with_base": True}, r"target\.bits=3: 4 or 8"),
    ],
)
def test_bits_that_mean_nothing_are_refused(keys, message):
    with pytest.raises(ConfigError, match=message):
        MLX(**keys)


def test_without_mlx_lm_the_install_line_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlx_lm", None)
    with pytest.raises(ConfigError, match=r"pip install 'graftlab\[mlx\]'"):
        MLX(bits=4, with_base=True).check_files()


@pytest.mark.slow
def test_another_model_is_refused(tmp_path):
    mlx_lm = pytest.importorskip("mlx_lm.utils")
    folder = exported(hf_run(tmp_path / "made"), tmp_path / "mlx")
    weights = folder / "adapters.safetensors"
    from safetensors.torch import load_file, save_file

    state = {name.replace("layers.0", "layers.7"): t for name, t in load_file(weights).items()}
    save_file(state, weights)
    model, _ = mlx_lm.load_model(folder / "base")
    with pytest.raises(ModelError, match=r"does not fit this model: model\.layers\.7"):
        load_adapter(model, folder)


def test_a_hugging_face_adapter_is_transposed(tmp_path):
    adapter = load(str(hf_run(tmp_path, rslora=True)))
    made = in_mlx(adapter).state
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


@pytest.mark.parametrize(
    ("lora", "message"),
    [
        ({"modules_to_save": ["norm"]}, "mlx-lm has no modules_to_save|not a LoRA matrix"),
        ({"rank_pattern": {"q_proj": 2}}, "of ranks 2, 4 cannot be exported"),
        ({"alpha_pattern": {"q_proj": 2.0}}, "mlx-lm has no alpha_pattern"),
        ({"trainable_tokens": ["!"]}, "mlx-lm has no trainable_token_indices"),
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
    with pytest.raises(ConfigError, match="target.with_base=true needs the base"):
        MLX(with_base=True).check(adapter)
