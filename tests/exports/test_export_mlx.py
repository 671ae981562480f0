"""`target=mlx`: names and shapes of mlx-lm, and where mlx is installed the logits of graftlab."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from afm_adapters import hf_run
from gated import gated
from graftlab.errors import ConfigError, ModelError
from graftlab.exports.mlx import MLX, in_mlx, mlx_config
from graftlab.exports.parity.record import AS_TRAINED, REFUSED
from graftlab.exports.source import load
from mlx_exports import check_logits, exported


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


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["qwen2", "llama"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_mlx_lm_is_asked_before_it_is_kept(kind, tmp_path):
    pytest.importorskip("mlx_lm")
    run = hf_run(tmp_path / "made", kind)
    report = gated(MLX(with_base=True), run, tmp_path / "mlx")
    found = report.measured
    assert report.verdict == AS_TRAINED, report.why
    assert found.runtime.startswith("mlx-lm")
    assert (found.same_prompts, found.replies, found.endless) == (2, 2, [])
    assert found.kl < 1e-6 < found.moved
    assert found.nll_control == pytest.approx(found.nll_base, abs=1e-5)
    report = gated(MLX(with_base=True), run, tmp_path / "half", half_scale)
    assert report.verdict == REFUSED
    assert "as the adapter at 0.5 times its scale" in report.why
    report = gated(MLX(), run, tmp_path / "alone")
    if kind == "llama":
        assert report.verdict == AS_TRAINED, "mlx-lm takes the angle that it has"
    else:
        assert report.verdict == REFUSED, "rope_theta is where mlx-lm does not look"
        assert "the base by itself answers otherwise there" in report.why


def half_scale(folder):
    config = json.loads((folder / "adapter_config.json").read_text())
    config["lora_parameters"]["scale"] /= 2
    (folder / "adapter_config.json").write_text(json.dumps(config))


def test_without_mlx_lm_it_is_stamped(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    adapter = load(str(hf_run(tmp_path)))
    assert "pip install mlx-lm" in MLX().runtime(adapter, tmp_path).why
