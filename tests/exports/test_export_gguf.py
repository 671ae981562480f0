"""`target=gguf`: one file that llama.cpp answers from as base and adapter do here."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from afm_adapters import hf_run, logits, run_on
from gguf_files import gguf, write_gguf
from graftlab.adapters.artifact import find_artifact
from graftlab.adapters.attach import load_adapter
from graftlab.errors import ConfigError, ModelError
from graftlab.exports.gguf import GGUF, quantising, writing
from graftlab.exports.gguf.kinds import entries
from graftlab.exports.gguf.quantising import quantised
from graftlab.exports.gguf.target import CHOICES
from graftlab.exports.source import load
from graftlab.models.base import ModelSpec
from graftlab.models.gguf import GGUFModel
from graftlab.models.gguf.families import config_of
from graftlab.models.gguf.file import read_gguf
from graftlab.models.gguf.packages import PACKAGES
from graftlab.models.hf import HFModel
from graftlab.models.quantization.base import Quantization
from graftlab.models.quantization.int8 import Int8
from graftlab.models.quantization.nf4 import NF4
from llama_client import assert_answers_alike, serving
from merged_exports import IDS
from miniatures import miniature
from packed_folders import packed_folder
from tolerance import assert_same

ROPE = {"rope_theta": 1e4}
KINDS = {
    "llama": {},
    "mistral": {"sliding_window": None},
    "qwen2": {},
    "qwen3": {},
    "phi3": {},
    "gemma2": {},
    "gemma3": {},
}


def slow(value: Any) -> Any:
    return pytest.param(value, marks=pytest.mark.slow)


def written(run: Path, folder: Path, **keys: Any) -> Path:
    """The file of an export that was checked and read back."""
    folder.mkdir()
    target, adapter = GGUF(**keys), load(str(run))
    target.check_files()
    target.check(adapter)
    target.write(adapter, folder)
    target.verify(adapter, folder)
    return folder / "model.gguf"


@pytest.mark.parametrize("kind", [k if k in ("llama", "gemma3") else slow(k) for k in KINDS])
def test_llama_cpp_answers_as_base_and_adapter_do(kind: str, tmp_path: Path) -> None:
    run = hf_run(tmp_path / "made", kind, config=KINDS[kind])
    # What llama.cpp takes for GELU is a table in fp16.
    tolerance = 5e-3 if kind.startswith("gemma") else 2e-4
    with serving(written(run, tmp_path / "out", quant="f32")) as llama:
        assert_answers_alike(llama, run, tolerance=tolerance)


@pytest.mark.parametrize(
    "lora",
    [
        {"targets": ["q_proj", "lm_head"]},
        slow({"dora": True}),
        slow({"rslora": True, "alpha_pattern": {"v_proj": 9.0}}),
        slow({"modules_to_save": ["norm"]}),
        slow({"trainable_tokens": ["!", "?"]}),
    ],
)
def test_all_that_an_adapter_trains_is_in_it(lora: dict[str, Any], tmp_path: Path) -> None:
    """Read back as the base of another training: the logits of the run."""
    run = hf_run(tmp_path / "made", "qwen2", **lora)
    file = written(run, tmp_path / "out", quant="f32")
    assert_same(own_logits(GGUFModel(path=str(file))), logits(run, IDS))
    head = "output.weight" in read_gguf(file).tensors
    assert head == (lora.get("targets") == ["q_proj", "lm_head"]), "a tied head is left out"


def own_logits(model: ModelSpec) -> torch.Tensor:
    base = model.load(dtype=torch.float32, device=torch.device("cpu"))
    with torch.no_grad():
        return torch.cat([base.own_logits(row[None]) for row in IDS])


def test_a_strength_is_that_of_sampling(tmp_path: Path) -> None:
    run = hf_run(tmp_path / "made", "llama")
    loaded = HFModel(path=str(tmp_path / "made" / "llama")).load(
        dtype=torch.float32, device=torch.device("cpu")
    )
    adapter = load_adapter(loaded, find_artifact(str(run)).require_adapter())
    with torch.no_grad(), adapter.scaled(0.5):
        wanted = torch.cat([loaded.own_logits(row[None]) for row in IDS])
    file = written(run, tmp_path / "out", quant="f32", strength=0.5)
    assert_same(own_logits(GGUFModel(path=str(file))), wanted)
    assert (logits(run, IDS) - wanted).abs().max() > 0.01, "the strength counts"


@pytest.mark.parametrize("storage", [NF4(), slow(Int8())])
def test_the_base_is_what_its_codes_say(storage: Quantization, tmp_path: Path) -> None:
    """Never the full-precision weights, on which the adapter says something else."""
    run = hf_run(tmp_path / "made", "llama", quantization=storage)
    file = written(run, tmp_path / "out", quant="f32")
    found, wanted = own_logits(GGUFModel(path=str(file))), logits(run, IDS)
    assert_same(found, wanted)
    plain = hf_run(tmp_path / "plain", "llama")
    assert (logits(plain, IDS) - wanted).abs().max() > 0.01, "the codes count"


@pytest.mark.parametrize("kind", ["nf4", slow("int8")])
def test_a_base_that_came_as_codes_is_merged_as_it_widens(kind: str, tmp_path: Path) -> None:
    folder, _ = packed_folder(miniature("llama", tmp_path / "wide"), tmp_path / "packed", kind)
    run = run_on(HFModel(path=str(folder)), tmp_path)
    file = written(run, tmp_path / "out", quant="f32")
    assert_same(own_logits(GGUFModel(path=str(file))), logits(run, IDS))


@pytest.mark.parametrize("kind", ["llama", slow("gemma3")])
def test_a_gguf_base_is_merged_as_it_widens(kind: str, tmp_path: Path) -> None:
    folder = miniature(kind, tmp_path / kind)
    base = write_gguf(folder, tmp_path / "base.gguf", kind="Q8_0", general__name="mine")
    run = run_on(GGUFModel(path=str(base)), tmp_path)
    file = written(run, tmp_path / "out", quant="f32")
    before, after = read_gguf(base), read_gguf(file)
    changed = {k for k, v in after.metadata.items() if v != before.metadata.get(k)}
    assert changed <= {"general.file_type", "tokenizer.ggml.add_eos_token"}
    assert config_of(after) == config_of(before)
    with serving(file) as llama:
        assert_answers_alike(llama, run, tolerance=5e-3)


@pytest.mark.parametrize("quant", ["q4_k_m", *map(slow, CHOICES[1:6]), slow("q4_0")])
def test_types_are_those_of_llama_cpp(quant: str, tmp_path: Path) -> None:
    """Rows of 256 fill the large blocks, rows of 64 none of them."""
    config = {"hidden_size": 256, "intermediate_size": 64, "num_hidden_layers": 8}
    run = hf_run(tmp_path / "made", "llama", config=config)
    file = read_gguf(written(run, tmp_path / "out", quant=quant))
    kinds = {name.removesuffix(".weight"): tensor.dtype for name, tensor in file.tensors.items()}
    plain = {"f16": "F16", "bf16": "BF16", "q8_0": "Q8_0", "q6_k": "Q6_K", "q4_0": "Q4_0"}
    usual = plain.get(quant, quant[:4].upper())
    assert kinds["output_norm"] == kinds["blk.0.attn_norm"] == "F32"
    assert kinds["token_embd"] == kinds["blk.3.attn_q"] == kinds["blk.2.attn_v"] == usual
    assert kinds["output"] == ("Q6_K" if quant in ("q4_0", "q4_k_m", "q5_k_m") else usual)
    more = {n for n in range(8) if kinds[f"blk.{n}.attn_v"] != usual}
    assert more == ({0, 3, 6, 7} if quant.endswith("_m") else set())
    fallen = {"q4_k_m": "Q5_0", "q5_k_m": "Q5_1", "q6_k": "Q8_0"}.get(quant, usual)
    assert kinds["blk.2.ffn_down"] == fallen


def test_blocks_are_those_of_gguf_py() -> None:
    values = torch.randn(3, 512, generator=torch.Generator().manual_seed(1))
    for kind in ("Q8_0", "Q4_0", "Q5_0", "Q5_1"):
        wanted = gguf.quants.quantize(values.numpy(), gguf.GGMLQuantizationType[kind])
        assert (quantised("w", values, kind) == wanted.reshape(-1)).all(), kind


def test_pieces_give_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    values = torch.randn(7, 512, generator=torch.Generator().manual_seed(1))
    whole = quantised("w", values, "Q4_K")
    monkeypatch.setattr(quantising, "PIECE", 1024)
    assert (quantised("w", values, "Q4_K") == whole).all()


def test_what_does_not_fit_is_named() -> None:
    with pytest.raises(ModelError, match=r"blk.*do not fit F16.*target.quant=bf16"):
        quantised("blk", torch.tensor([[7e4]]), "F16")
    with pytest.raises(ModelError, match="no numbers"):
        quantised("blk", torch.full((1, 256), torch.nan), "Q4_K")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "config", "message"),
    [
        ("granite", {}, "granite model, which is not written as GGUF.*target=merged"),
        ("llama", {"mlp_bias": True}, "would lose mlp_bias"),
        ("llama", {"hidden_act": "gelu"}, "would lose hidden_act"),
        (
            "llama",
            {"rope_parameters": {**ROPE, "rope_type": "dynamic", "factor": 2.0}},
            "positions by dynamic",
        ),
    ],
)
def test_what_has_no_place_in_it_is_refused(
    kind: str, config: dict[str, Any], message: str, tmp_path: Path
) -> None:
    run = hf_run(tmp_path / "made", kind, config=config)
    with pytest.raises(ModelError, match=message):
        GGUF().check(load(str(run)))


@pytest.mark.slow
def test_the_scaling_of_llama_3_is_a_tensor(tmp_path: Path) -> None:
    scaling = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0}
    scaling |= {"high_freq_factor": 4.0, "original_max_position_embeddings": 64}
    config = {"rope_parameters": {**ROPE, **scaling}}
    run = hf_run(tmp_path / "made", "llama", config=config)
    file = written(run, tmp_path / "out", quant="f32")
    assert "rope_freqs.weight" in read_gguf(file).tensors
    with serving(file) as llama:
        assert_answers_alike(llama, run)


def test_a_file_that_was_changed_is_not_what_was_written(tmp_path: Path) -> None:
    run = hf_run(tmp_path / "made", "llama")
    file = written(run, tmp_path / "out", quant="q8_0")
    entry = read_gguf(file).tensors["blk.1.ffn_up.weight"]
    with file.open("r+b") as stream:
        stream.seek(entry.offset + 7)
        stream.write(bytes([stream.read(1)[0] ^ 1]))
    with pytest.raises(ModelError, match=r"blk.1.ffn_up.weight was not read back"):
        GGUF(quant="q8_0").verify(load(str(run)), file.parent)


@pytest.mark.slow
def test_the_mix_is_that_of_a_published_file() -> None:
    """Gemma 3 270M in Q4_K_M, which llama.cpp's own program has written."""
    cache = os.environ.get("GRAFTLAB_REAL_MODELS", "")
    path = Path(cache) / "models" / PACKAGES["gemma-3-270m"].file
    if not cache or not path.is_file():
        pytest.skip("gemma-3-270m is not in GRAFTLAB_REAL_MODELS")
    file = read_gguf(path)
    found, fallen = entries("q4_k_m", file, {n: t.shape for n, t in file.tensors.items()})
    assert {n: e.kind for n, e in found.items()} == {n: t.dtype for n, t in file.tensors.items()}
    assert fallen == 91


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    values = torch.randn(2, 64, generator=torch.Generator().manual_seed(1))
    wanted = quantised("w", values, "Q8_0")
    monkeypatch.setattr(quantising, "_library", lambda: None)
    with pytest.raises(ConfigError, match=r"llama.cpp's own quantiser.*graftlab\[gguf\].*q8_0"):
        quantising.require_quantiser({"F32", "Q4_K"})
    quantising.require_quantiser({"F32", "F16", "BF16", "Q8_0"})
    assert (quantised("w", values, "Q8_0") == wanted).all(), "gguf-py's own blocks"
    monkeypatch.setattr(writing, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"target=gguf needs.*pip install 'graftlab\[gguf\]'"):
        GGUF().check_files()
