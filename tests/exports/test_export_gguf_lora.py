"""`target=gguf-lora`: llama.cpp answers from the base's file and the adapter's as training does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from afm_adapters import hf_run, run_on
from gguf_files import write_gguf
from graftlab.errors import ModelError
from graftlab.exports.gguf_lora import GGUFLora
from graftlab.exports.source import load
from graftlab.models.gguf import GGUFModel
from graftlab.models.gguf.file import read_gguf
from graftlab.models.quantization.nf4 import NF4
from llama_client import assert_answers_alike, serving
from miniatures import miniature


def slow(*values: Any) -> Any:
    return pytest.param(*values, marks=pytest.mark.slow)


PATTERNS = {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"v_proj": 9.0}}


def written(run: Path, folder: Path, **keys: Any) -> Path:
    """The folder of an export that was checked and read back."""
    folder.mkdir()
    target, adapter = GGUFLora(**keys), load(str(run))
    target.check(adapter)
    target.write(adapter, folder)
    target.verify(adapter, folder)
    return folder


@pytest.mark.parametrize(
    ("kind", "lora"),
    [
        ("llama", {"rslora": True, **PATTERNS}),
        *(slow(kind, {}) for kind in ("qwen2", "phi3", "gemma3")),
        slow("llama", {"targets": ["q_proj", "lm_head"]}),
    ],
)
def test_llama_cpp_answers_as_base_and_adapter_do(
    kind: str, lora: dict[str, Any], tmp_path: Path
) -> None:
    run = hf_run(tmp_path / "made", kind, **lora)
    folder = written(run, tmp_path / "out", base="f32")
    tolerance = 5e-3 if kind.startswith("gemma") else 2e-4
    with serving(folder / "base.gguf", folder / "adapter.gguf") as llama:
        assert_answers_alike(llama, run, tolerance=tolerance)
        with pytest.raises(AssertionError):  # the base alone answers otherwise
            assert_answers_alike(llama, run, tolerance=tolerance, lora=[{"id": 0, "scale": 0.0}])


@pytest.mark.parametrize("kind", ["llama", slow("gemma3")])
def test_it_goes_onto_the_file_it_was_trained_on(kind: str, tmp_path: Path) -> None:
    base = write_gguf(miniature(kind, tmp_path / kind), tmp_path / "base.gguf", kind="F32")
    run = run_on(GGUFModel(path=str(base)), tmp_path)
    folder = written(run, tmp_path / "out")
    assert not (folder / "base.gguf").exists()
    with serving(base, folder / "adapter.gguf") as llama:
        assert_answers_alike(llama, run, tolerance=5e-3 if kind == "gemma3" else 2e-4)


def test_the_scale_is_one_alpha_for_all_ranks(tmp_path: Path) -> None:
    run = hf_run(tmp_path / "made", "llama", rslora=True, **PATTERNS)
    file = read_gguf(written(run, tmp_path / "out", strength=0.5) / "adapter.gguf")
    config = load(str(run)).config
    told = file.metadata["adapter.lora.alpha"]
    assert told == pytest.approx(config["lora_alpha"] * config["r"] ** 0.5 / 2)
    shapes = {name: tensor.shape for name, tensor in file.tensors.items()}
    assert shapes["blk.0.attn_q.weight.lora_a"] == (2, 64)
    assert shapes["blk.0.attn_v.weight.lora_b"] == (32, 4)
    assert file.metadata["general.type"] == "adapter"


@pytest.mark.parametrize(
    ("lora", "message"),
    [
        ({"targets": ["q_proj", "lm_head"]}, "a head that is tied to the embedding"),
        slow({"dora": True}, "DoRA"),
        slow({"modules_to_save": ["norm"]}, "modules trained in full"),
        slow({"trainable_tokens": ["!", "?"]}, "trained tokens"),
        slow({"quantization": NF4()}, "codes of few bits"),
    ],
)
def test_what_has_no_place_beside_a_base_is_refused(
    lora: dict[str, Any], message: str, tmp_path: Path
) -> None:
    run = hf_run(tmp_path / "made", "qwen2", **lora)
    with pytest.raises(ModelError, match=rf"{message}.*target=gguf m"):
        GGUFLora().check(load(str(run)))
