"""Loading a Hugging Face folder: what is refused, what is told apart, and what it costs."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from graftlab.errors import ConfigError, ModelError
from graftlab.models.fingerprint import fingerprint
from graftlab.models.hf import HFModel
from graftlab.models.tiny import TinyModel
from graftlab.models.weights import stored_tensors
from miniatures import miniature

MakeMiniature = Callable[[str], Path]
CPU = torch.device("cpu")


@pytest.fixture
def copied(qwen2_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(qwen2_folder, tmp_path / "qwen2"))


def test_exactly_one_of_path_and_hub() -> None:
    for given in ({}, {"path": "x", "hub": "y/z"}):
        with pytest.raises(ConfigError, match=r"model\.path=DIR .* model\.hub=ID"):
            HFModel(**given)
    with pytest.raises(ConfigError, match=r"model\.attention=segmets .*`segments`"):
        HFModel(path="x", attention="segmets")
    with pytest.raises(ConfigError, match=r"model\.revision"):
        HFModel(path="x", revision="main")
    with pytest.raises(ConfigError, match="model=tiny ships"):
        TinyModel(path="x")


def test_an_absent_folder_suggests_a_sibling(copied: Path) -> None:
    with pytest.raises(ModelError, match=r"model\.path=.*qwen.*no such folder.*`qwen2`"):
        HFModel(path=str(copied.parent / "qwen")).check()


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    for name, fix in [("a.gguf", "model=gguf model.path="), ("a.bin", "a file: name its folder")]:
        (tmp_path / name).touch()
        with pytest.raises(ModelError, match=fix):
            HFModel(path=str(tmp_path / name)).check()


def test_a_hub_id_without_a_network_says_what_to_do() -> None:
    spec = HFModel(hub="nobody/nothing")
    spec.check()
    with pytest.raises(ModelError, match=r"model\.hub=nobody/nothing .* use model\.path=DIR"):
        spec.folder()


def test_broken_folders_are_told_apart(copied: Path) -> None:
    spec, weights, config = HFModel(path=str(copied)), *broken_files(copied)
    spec.check()
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-100])
    with pytest.raises(ModelError, match="cut off"):
        spec.check()
    weights.write_bytes(b"PK\x03\x04 not at all")
    with pytest.raises(ModelError, match="not a readable safetensors"):
        spec.check()
    weights.unlink()
    with pytest.raises(ModelError, match=r"no model\.safetensors"):
        spec.check()
    (copied / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ModelError, match="pickle"):
        spec.check()
    weights.write_bytes(whole)
    config.write_text(json.dumps({**json.loads(config.read_text()), "vision_config": {}}))
    with pytest.raises(ModelError, match="more than text"):
        spec.check()
    config.unlink()
    with pytest.raises(ModelError, match=r"no config\.json"):
        spec.check()


def broken_files(folder: Path) -> tuple[Path, Path]:
    return folder / "model.safetensors", folder / "config.json"


def test_a_missing_tensor_is_an_error_not_a_random_one(copied: Path) -> None:
    tensors = load_file(copied / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, copied / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks 1 tensors.*layers\.1\.mlp\.up_proj"):
        HFModel(path=str(copied)).load(dtype=torch.float32, device=CPU)


def test_the_base_is_stored_in_the_dtype_asked_for(qwen2_folder: Path) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        base = HFModel(path=str(qwen2_folder)).load(dtype=dtype, device=CPU)
        assert base.dtype == dtype
        assert {p.dtype for p in base.model.parameters()} == {dtype}
        assert base.source == str(qwen2_folder)
        assert base.folder == qwen2_folder
        assert base.attention_choice[0] == "segments"


def test_the_fingerprint_sees_one_finetuned_tensor_and_no_mere_copy(tmp_path: Path) -> None:
    folder = miniature("qwen2", tmp_path / "a", hidden_size=128, intermediate_size=1024)
    before = fingerprint(folder)
    name = "model.layers.1.mlp.up_proj.weight"
    assert stored_tensors(folder)[name].num_bytes > 500_000  # sampled, not read whole
    copy = Path(shutil.copytree(folder, tmp_path / "b"))
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "transformers_version": "9"}))
    assert fingerprint(copy) == before

    tensors = load_file(copy / "model.safetensors")
    halves = [dict(list(tensors.items())[::2]), dict(list(tensors.items())[1::2])]
    for number, half in enumerate(halves):
        save_file(half, copy / f"part-{number}.safetensors")
    places = {name: f"part-{n}.safetensors" for n, half in enumerate(halves) for name in half}
    (copy / "model.safetensors").unlink()
    (copy / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    assert fingerprint(copy) == before

    tensors[name] = tensors[name] * 1.0001
    save_file(tensors, folder / "model.safetensors")
    assert fingerprint(folder) != before
    (copy / "config.json").write_text(json.dumps({**config, "rope_theta": 5.0}))
    assert fingerprint(copy) != before


MEASURE = """
import resource, sys, torch
from pathlib import Path
from graftlab.models.hf import HFModel
import graftlab.packing.attention, transformers.models.qwen2.modeling_qwen2
HFModel(path={small!r}).load(dtype=torch.{dtype}, device=torch.device("cpu"))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
base = HFModel(path={large!r}).load(dtype=torch.{dtype}, device=torch.device("cpu"))
sum(p.sum() for p in base.model.parameters())
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_loading_takes_no_second_copy(dtype: str, qwen2_folder: Path, tmp_path: Path) -> None:
    folder = miniature("qwen2", tmp_path, hidden_size=1024, intermediate_size=8192)
    size = (folder / "model.safetensors").stat().st_size
    assert size > 200e6
    script = MEASURE.format(small=str(qwen2_folder), large=str(folder), dtype=dtype)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    # The file is mapped: converting touches it once beside the converted weights.
    allowed = {"float32": 1.2, "bfloat16": 1.7}[dtype]
    assert int(done.stdout) * 1024 < allowed * size
