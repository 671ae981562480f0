"""`target=mlpackage`: a draft goes to Core ML in 4 bits and is found again; needs coremltools."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from afm_adapters import afm_run
from afm_assets import make_assets
from graftlab.apple.exports import blob
from graftlab.apple.exports.mlpackage import MLPackage
from graftlab.apple.exports.whole import load_whole
from graftlab.errors import ConfigError, ModelError
from graftlab.exports.source import Trained, load
from miniatures import miniature
from tolerance import assert_same

QWEN = "qwen2"


def whole_model(kind: str, folder: Path) -> Path:
    """A run whose adapter/ is a whole model, as one that trained all weights leaves it."""
    place = folder / "run" / "adapter"
    place.parent.mkdir(parents=True)
    if kind == "afm":
        return make_assets(place).parent
    return miniature(kind, place).parent


@pytest.mark.parametrize("kind", ["afm", QWEN, "llama"])
def test_what_is_traced_answers_like_the_model(kind, tmp_path):
    """The plain operations that replace masks and 8-bit keys change no logit."""
    if kind == "afm":
        pytest.importorskip("tamm")
    run = whole_model(kind, tmp_path)
    adapter = load(str(run))
    assert adapter.whole == run / "adapter"
    model = load_whole(adapter.whole, length=11)
    ids = torch.randint(5, 200, (1, 11), dtype=torch.int32)
    with torch.no_grad():
        assert_same(model(ids), reference(adapter.whole, ids))
        later = ids.clone()
        later[0, 7:] = 9
        assert_same(model(later)[0, :7], model(ids)[0, :7])


def reference(folder: Path, ids: torch.Tensor) -> torch.Tensor:
    if (folder / "config.json").is_file():
        from transformers import AutoModelForCausalLM

        stock = AutoModelForCausalLM.from_pretrained(str(folder), attn_implementation="eager")
        return stock(input_ids=ids).logits
    from graftlab.apple.base import load_model
    from graftlab.apple.files import find_assets

    model = load_model(find_assets(folder), dtype=torch.float32, device=torch.device("cpu"))
    return model.eval()(ids).logits


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # coremltools has not been tried with this torch
@pytest.mark.parametrize("kind", ["afm", QWEN])
def test_a_draft_becomes_a_palettised_package(kind, tmp_path):
    pytest.importorskip("coremltools")
    from graftlab.verbs.export import Exported, ExportSpec, run

    spec = ExportSpec(
        adapter=str(whole_model(kind, tmp_path)), target=MLPackage(length=16),
        name="draft", out=str(tmp_path),
    )  # fmt: skip
    spec.check()
    done = run(spec)
    assert isinstance(done, Exported)
    assert done.path == tmp_path / "draft.mlpackage"
    assert (done.path / "Manifest.json").is_file()
    weights = done.path / "Data/com.apple.CoreML/weights/weight.bin"
    codes = [record for record in blob.read(weights) if record.dtype == 11]
    assert len(codes) >= 5 * (2 if kind == QWEN else 4), "all projections but the smallest"
    (fact,) = [fact for fact in done.facts if "in 4 bits" in fact]
    assert fact.startswith(f"{int(fact.split()[0])} weights")
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_package_of_other_weights_is_not_kept(tmp_path, monkeypatch):
    pytest.importorskip("coremltools")
    from graftlab.apple.exports import coreml

    adapter = load(str(whole_model(QWEN, tmp_path)))
    target = MLPackage(length=16, bits=4)
    folder = tmp_path / "draft.mlpackage"
    folder.mkdir()
    target.write(adapter, folder)
    target.verify(adapter, folder)
    found = list(coreml.stored_weights(folder))
    turned = [(name, -values if coded else values, coded) for name, values, coded in found]
    monkeypatch.setattr(coreml, "stored_weights", lambda _: iter(turned))
    with pytest.raises(ModelError, match="4 bits should keep them within"):
        target.verify(adapter, folder)


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 6, 8])
def test_packed_codes_are_unpacked(bits, tmp_path):
    codes = np.random.default_rng(0).integers(0, 2**bits, 41).astype(np.uint8)
    flags = np.unpackbits(codes[:, None], axis=1, bitorder="little")[:, :bits].ravel()
    raw = np.packbits(flags, bitorder="little").tobytes()
    (tmp_path / "codes.bin").write_bytes(b"\0" * 128 + raw)
    dtype = {1: 9, 2: 10, 3: 12, 4: 11, 6: 13, 8: 3}[bits]
    record = blob.Record(dtype, len(raw), 128, 8 * len(raw) - bits * len(codes))
    assert record.elements == 41
    assert np.array_equal(blob.load_codes(tmp_path / "codes.bin", record), codes)


@pytest.mark.slow
def test_codes_are_packed_as_coremltools_packs_them(tmp_path):
    storage = pytest.importorskip("coremltools.libmilstoragepython")
    codes = np.array([1, 2, 3, 15, 0, 7, 9], dtype=np.uint8)
    writer = storage._BlobStorageWriter(str(tmp_path / "codes.bin"))
    writer.write_uint4_data(codes)
    del writer
    (record,) = blob.read(tmp_path / "codes.bin")
    assert record.padding_bits == 4
    assert np.array_equal(blob.load_codes(tmp_path / "codes.bin", record), codes)


def test_what_it_does_not_take_is_told(tmp_path):
    pytest.importorskip("tamm")
    with pytest.raises(ModelError, match=r"For its base there are fmadapter, mlx, peft"):
        MLPackage().check(load(str(afm_run(tmp_path / "afm"))))
    whole = load(str(whole_model("afm", tmp_path)))
    with pytest.raises(ModelError, match="target.cache=true takes those alone"):
        MLPackage(cache=True).check(whole)


def test_a_model_is_no_adapter(tmp_path):
    from graftlab.apple.exports.fmadapter import FMAdapter
    from graftlab.exports.mlx import MLX
    from graftlab.exports.peft import Peft

    model = load(str(whole_model(QWEN, tmp_path)))
    for target in (FMAdapter(), MLX(), Peft()):
        with pytest.raises(ModelError, match="is a whole model, not an adapter"):
            target.check(model)


def test_without_coremltools_the_install_line_is_told(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "coremltools", None)
    with pytest.raises(ConfigError, match=r"pip install 'graftlab\[coreml\]'"):
        MLPackage().check(Trained(tmp_path, {}, whole=tmp_path))


def test_bits_and_length_are_checked():
    with pytest.raises(ConfigError, match="target.bits=5 is not one of"):
        MLPackage(bits=5)
    with pytest.raises(ConfigError, match="target.length=1 is out of range"):
        MLPackage(length=1)


def test_a_window_shorter_than_a_row_is_refused(tmp_path):
    folder = miniature("mistral", tmp_path / "model")
    with pytest.raises(ModelError, match="its attention spans 16 tokens; target.length=16 at most"):
        load_whole(folder, length=17)
    shutil.rmtree(folder)
    with pytest.raises(ModelError, match="is not an assets folder|is not a model"):
        load_whole(folder, length=17)
