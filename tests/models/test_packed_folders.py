"""A folder that bitsandbytes has quantised is a base of its own codes, or is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from graftlab.errors import ConfigError, ModelError
from graftlab.models.hf import HFModel
from graftlab.models.hf_base import HFBase
from graftlab.models.metadata import read_metadata
from graftlab.models.quantization.base import Codes, Quantization
from graftlab.models.quantization.int8 import Int8
from graftlab.models.quantization.nf4 import NF4
from graftlab.models.quantization.weight import QuantizedWeight
from miniatures import flat_batch, miniature
from packed_folders import Parts, configure, floats, packed_folder, state

CPU = torch.device("cpu")
KINDS: dict[str, Codes] = {"nf4": NF4(), "double": NF4(double=True), "int8": Int8()}
UP = "model.layers.0.mlp.up_proj.weight"


def load(
    folder: Path, quantization: Quantization | None = None, dtype: torch.dtype = torch.float32
) -> HFBase:
    spec = HFModel(path=str(folder), quantization=quantization or Quantization())
    return spec.load(dtype=dtype, device=CPU)


def fingerprint(folder: Path, quantization: Quantization | None = None) -> str:
    return HFModel(path=str(folder), quantization=quantization or Quantization()).fingerprint()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_values_are_those_of_the_format(
    kind: str, dtype: torch.dtype, qwen2_folder: Path, tmp_path: Path
) -> None:
    folder, wanted = packed_folder(qwen2_folder, tmp_path / kind, kind, hand=True)
    base = load(folder, dtype=dtype)
    others = load_file(qwen2_folder / "model.safetensors")
    assert len(wanted) == 14
    for name, parameter in base.model.named_parameters():
        assert parameter.dtype == dtype
        assert not parameter.requires_grad
        if name in wanted:
            assert isinstance(parameter.data, QuantizedWeight)
            values = torch.from_numpy(wanted[name])
            assert torch.equal(parameter.data.wide(torch.float32), values)
            assert torch.equal(parameter.data.wide(), values.to(dtype))
        else:
            assert torch.equal(parameter, others[name].to(dtype))
    assert HFModel(path=str(folder)).storage == KINDS[kind]
    spec = HFModel(path=str(folder))
    assert spec.fingerprint() == base.fingerprint != fingerprint(qwen2_folder, KINDS[kind])


@pytest.mark.parametrize("kind", ["nf4", "int8"])
@pytest.mark.parametrize("family", ["qwen2", "llama", "gemma3"])
def test_it_is_the_base_that_is_quantised_here(kind: str, family: str, tmp_path: Path) -> None:
    wide = miniature(family, tmp_path / "wide")
    folder, _ = packed_folder(wide, tmp_path / "packed", kind)
    found, wanted = load(folder), load(wide, KINDS[kind])
    assert found.fingerprint == wanted.fingerprint
    batch = flat_batch([7, 11])
    assert torch.equal(found.hidden(batch), wanted.hidden(batch))
    assert torch.equal(found.own_logits(batch.input_ids), wanted.own_logits(batch.input_ids))
    for name, value in wanted.model.named_buffers():
        assert torch.equal(found.model.get_buffer(name), value)


def test_fingerprints_tell_values_apart(qwen2_folder: Path, tmp_path: Path) -> None:
    def flip(parts: Parts) -> None:
        dtype, shape, content = parts[UP]
        parts[UP] = dtype, shape, bytes([content[0] ^ 1]) + content[1:]

    def scale(parts: Parts) -> None:
        dtype, shape, content = parts[f"{UP}.absmax"]
        parts[f"{UP}.absmax"] = dtype, shape, floats(0.5) + content[4:]

    marks = {fingerprint(qwen2_folder, choice) for choice in (None, *KINDS.values())}
    for number, change in enumerate((flip, scale)):
        folder, _ = packed_folder(qwen2_folder, tmp_path / str(number), "nf4", change=change)
        marks.add(fingerprint(folder))
    assert len(marks) == 6
    tensors = load_file(qwen2_folder / "model.safetensors")
    tensors[UP][0, :64] *= 1.001
    (tmp_path / "other").mkdir()
    save_file(tensors, tmp_path / "other" / "model.safetensors")
    (tmp_path / "other" / "config.json").write_bytes((qwen2_folder / "config.json").read_bytes())
    assert fingerprint(tmp_path / "other", NF4()) not in marks


def test_a_plan_counts_it_by_its_headers(
    qwen2_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graftlab.models.weights.copy_tensor", None)
    wide = HFModel(path=str(qwen2_folder), quantization=Int8())
    for kind in KINDS:
        folder, _ = packed_folder(qwen2_folder, tmp_path / kind, kind, hand=True)
        spec = HFModel(path=str(folder))
        spec.check()
        found, wanted = read_metadata(spec), read_metadata(wide)
        assert found.tensors == wanted.tensors
        assert found.source == "counted in its files"
        assert spec.storage.title == KINDS[kind].title


@pytest.mark.parametrize("asked", [Int8(), NF4(), NF4(double=True)], ids=lambda q: q.title)
def test_codes_are_not_made_of_codes(asked: Codes, qwen2_folder: Path, tmp_path: Path) -> None:
    folder, _ = packed_folder(qwen2_folder, tmp_path / "nf4", "nf4")
    spec = HFModel(path=str(folder), quantization=asked)
    for refused in (spec.check, lambda: read_metadata(spec), lambda: load(folder, asked)):
        with pytest.raises(ModelError, match=r"in nf4 .* would round them a second time: leave"):
            refused()


def _without(part: str) -> Callable[[Parts], object]:
    return lambda parts: parts.pop(f"{UP}{part}")


def _told(**changes: Any) -> Callable[[Parts], object]:
    kind = "double" if any(key.startswith("nested") for key in changes) else "nf4"

    def change(parts: Parts) -> None:
        parts[f"{UP}.quant_state.bitsandbytes__nf4"] = state(kind, (128, 64), **changes)

    return change


def _wide(parts: Parts) -> None:
    parts[UP] = ("F32", (128, 64), bytes(4 * 128 * 64))
    for part in ("absmax", "quant_map", "quant_state.bitsandbytes__nf4"):
        del parts[f"{UP}.{part}"]


def _fp4(parts: Parts) -> None:
    parts[f"{UP}.quant_state.bitsandbytes__fp4"] = parts.pop(f"{UP}.quant_state.bitsandbytes__nf4")


def _replaced(part: str, value: tuple[str, tuple[int, ...], bytes]) -> Callable[[Parts], object]:
    return lambda parts: parts.update({f"{UP}{part}": value})


REFUSED = {
    "fp4 inside": ("nf4", _fp4, "up_proj.weight is stored as fp4"),
    "blocks": ("nf4", _told(blocksize=128), "has blocks of 128, not 64"),
    "nested blocks": ("double", _told(nested_blocksize=64), "have blocks of 64, not 256"),
    "no matrix": ("nf4", _told(shape=[128, 8, 8]), "is no matrix"),
    "uneven": ("nf4", _told(shape=[3, 5]), "is no multiple of 64"),
    "no JSON": ("nf4", _replaced(".quant_state.bitsandbytes__nf4", ("U8", (2,), b"{]")), "JSON"),
    "no scales": ("nf4", _without(".absmax"), r"absmax is missing"),
    "single": ("double", _without(".nested_absmax"), "is not stored as config.json says"),
    "in bf16": ("nf4", _replaced("", ("BF16", (2048, 1), bytes(4096))), "is BF16"),
    "few scales": ("nf4", _replaced(".absmax", ("F32", (1,), floats(1))), "not 128 of F32"),
    "rows": ("int8", _replaced("_format", ("U8", (), b"\2")), "is not stored by rows"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_other_codes_are_refused(case: str, qwen2_folder: Path, tmp_path: Path) -> None:
    kind, change, problem = REFUSED[case]
    folder, _ = packed_folder(qwen2_folder, tmp_path / kind, kind, hand=True, change=change)
    spec = HFModel(path=str(folder))
    for refused in (spec.check, lambda: read_metadata(spec), lambda: load(folder)):
        with pytest.raises(ModelError, match=problem) as caught:
            refused()
        assert "full-precision folder" in str(caught.value)


def test_a_layer_that_was_left_wide_stays_so(qwen2_folder: Path, tmp_path: Path) -> None:
    folder, _ = packed_folder(qwen2_folder, tmp_path / "some", "nf4", change=_wide)
    weights = dict(load(folder).model.named_parameters())
    assert not isinstance(weights[UP].data, QuantizedWeight)
    assert sum(isinstance(w.data, QuantizedWeight) for w in weights.values()) == 13


def test_values_of_codes_that_are_not_those_of_nf4(qwen2_folder: Path, tmp_path: Path) -> None:
    change = _replaced(".quant_map", ("F32", (16,), floats(*range(16))))
    folder, _ = packed_folder(qwen2_folder, tmp_path / "map", "nf4", change=change)
    with pytest.raises(ModelError, match="stand for other values than those of nf4"):
        load(folder)


@pytest.mark.parametrize("number", ["nan", "inf"])
def test_scales_that_are_no_numbers_are_told(
    number: str, qwen2_folder: Path, tmp_path: Path
) -> None:
    """Packed attention may hide a NaN of its queries from the first outputs."""
    scales = floats(*[0.1] * 127, float(number))
    change = _replaced(".absmax", ("F32", (128,), scales))
    folder, _ = packed_folder(qwen2_folder, tmp_path / "odd", "nf4", change=change)
    with pytest.raises(ModelError, match=f"scales of {UP} some are NaN or infinite"):
        load(folder)


def test_config_and_tensors_agree(qwen2_folder: Path, tmp_path: Path) -> None:
    folder, _ = packed_folder(qwen2_folder, tmp_path / "nf4", "nf4")
    (folder / "model.safetensors").write_bytes((qwen2_folder / "model.safetensors").read_bytes())
    with pytest.raises(ModelError, match="says that it is quantised .* and no tensor is"):
        HFModel(path=str(folder)).check()
    other, _ = packed_folder(qwen2_folder, tmp_path / "other", "int8")
    configure(other, intermediate_size=64)
    with pytest.raises(ModelError, match=r"not those of a Qwen2ForCausalLM: .*\(128, 64\), not"):
        load(other)


def test_every_weight_is_not_trained(qwen2_folder: Path, tmp_path: Path) -> None:
    from graftlab.adapters.full import attach
    from graftlab.adapters.lora import Lora

    folder, _ = packed_folder(qwen2_folder, tmp_path / "nf4", "nf4")
    with pytest.raises(ConfigError, match="lora=none trains every weight"):
        attach(load(folder), Lora(full=True), dtype=torch.float32)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_bitsandbytes_writes_and_widens_the_same(kind: str, tmp_path: Path) -> None:
    bitsandbytes = pytest.importorskip("bitsandbytes")
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    wide = miniature("llama", tmp_path / "wide")
    # In 16 bits, as models come: it makes eight-bit codes of fp16, whatever the file holds.
    plain = AutoModelForCausalLM.from_pretrained(wide, dtype=torch.bfloat16)
    plain.save_pretrained(wide)
    asked = {
        "nf4": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
        "double": {
            "load_in_4bit": True,
            "bnb_4bit_quant_type": "nf4",
            "bnb_4bit_use_double_quant": True,
        },
        "int8": {"load_in_8bit": True},
    }
    config = BitsAndBytesConfig(**asked[kind])
    how: dict[str, Any] = {"device_map": "cpu", "dtype": torch.bfloat16}
    theirs = AutoModelForCausalLM.from_pretrained(wide, quantization_config=config, **how)
    theirs.save_pretrained(tmp_path / "packed")
    base = load(tmp_path / "packed")
    functional, compared = bitsandbytes.functional, 0
    for name, module in theirs.named_modules():
        if isinstance(module, bitsandbytes.nn.Linear4bit):
            told = module.weight.quant_state
            told.dtype = torch.float32
            wanted = functional.dequantize_4bit(module.weight.data, told)
            off = 0.0
        elif isinstance(module, bitsandbytes.nn.Linear8bitLt):
            weight = module.weight
            wanted = functional.int8_vectorwise_dequant(weight.data, weight.SCB)
            off = 2e-7  # it multiplies by 1 / 127, rounded, where here is a division
        else:
            continue
        found = base.model.get_submodule(name).weight.data
        assert isinstance(found, QuantizedWeight)
        torch.testing.assert_close(found.wide(), wanted, rtol=off, atol=0)
        compared += 1
    assert compared == 14
    if kind != "double":  # whose scales may be neighbours of ours
        assert base.fingerprint == fingerprint(wide, KINDS[kind])
