"""A base is quantised weight by weight while it is read, and is an ordinary base from then on."""

from __future__ import annotations

import gc
import json
import shutil
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from graftlab.errors import ConfigError, ModelError
from graftlab.models.hf import HFModel
from graftlab.models.hf_base import HFBase
from graftlab.models.quantization.base import Codes, Quantization
from graftlab.models.quantization.int8 import Int8
from graftlab.models.quantization.int8_rows import Int8Rows
from graftlab.models.quantization.nf4 import NF4
from graftlab.models.quantization.weight import QuantizedWeight
from miniatures import flat_batch, miniature

CPU = torch.device("cpu")
CHOICES = [NF4(), NF4(double=True), Int8()]
each_choice = pytest.mark.parametrize("choice", CHOICES, ids=lambda choice: choice.title)


def load(folder: Path, quantization: Quantization, dtype: torch.dtype = torch.float32) -> HFBase:
    return HFModel(path=str(folder), quantization=quantization).load(dtype=dtype, device=CPU)


def codes_of(base: HFBase) -> dict[str, QuantizedWeight]:
    named = base.model.named_parameters()
    return {name: p for name, p in named if isinstance(p, QuantizedWeight)}


@each_choice
def test_every_matrix_of_the_layers_becomes_codes(choice: Codes, qwen2_folder: Path) -> None:
    plain, base = load(qwen2_folder, Quantization()), load(qwen2_folder, choice)
    codes = codes_of(base)
    matrices = {
        f"{name}.weight"
        for name, module in base.model.named_modules()
        if isinstance(module, nn.Linear) and ".layers." in name
    }
    assert codes.keys() == matrices
    assert len(matrices) == 14
    for name, parameter in plain.model.named_parameters():
        stored = dict(base.model.named_parameters())[name]
        wanted = (
            choice.quantise(parameter.data, torch.float32).wide() if name in codes else parameter
        )
        assert torch.equal(stored.data if name not in codes else codes[name].wide(), wanted)
    assert base.num_parameters == plain.num_parameters
    assert not any(parameter.requires_grad for parameter in base.model.parameters())


@each_choice
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_codes_are_of_what_the_files_hold(
    choice: Codes, dtype: torch.dtype, qwen2_folder: Path
) -> None:
    """Rounded to 16 bits first, some values would fall to a neighbouring code."""
    wide, narrow = load(qwen2_folder, choice), load(qwen2_folder, choice, dtype)
    assert narrow.dtype == dtype
    assert narrow.fingerprint == wide.fingerprint
    for name, weight in codes_of(narrow).items():
        assert weight.dtype == dtype
        for ours, theirs in zip(weight.parts, codes_of(wide)[name].parts, strict=True):
            assert ours.dtype == theirs.dtype
            assert torch.equal(ours, theirs)
    name = "model.layers.0.mlp.up_proj.weight"
    rounded = load_file(qwen2_folder / "model.safetensors")[name].to(dtype).float()
    assert not torch.equal(choice.quantise(rounded, dtype).parts[0], codes_of(wide)[name].parts[0])


@each_choice
def test_it_computes_with_the_widened_weights(choice: Codes, qwen2_folder: Path) -> None:
    base, plain = load(qwen2_folder, choice), load(qwen2_folder, Quantization())
    batch = flat_batch([7, 11])
    found = base.hidden(batch)
    assert not torch.equal(found, plain.hidden(batch))
    with torch.no_grad():
        for name, weight in codes_of(base).items():
            dict(plain.model.named_parameters())[name].copy_(weight.wide())
    assert torch.equal(found, plain.hidden(batch))


def test_one_wide_weight_at_a_time(qwen2_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[weakref.ref[Tensor]] = []
    most = 0
    encode = Int8Rows.encode

    def counted(self: Int8Rows, weight: Tensor, parts: Sequence[Tensor]) -> None:
        nonlocal most
        gc.collect()
        read.append(weakref.ref(weight))
        most = max(most, sum(alive() is not None for alive in read))
        encode(self, weight, parts)

    monkeypatch.setattr(Int8Rows, "encode", counted)
    load(qwen2_folder, Int8())
    assert len(read) == 28, "each while it is read, and each for the fingerprint, of its file"
    assert most == 1


def test_the_model_remembers_nothing_of_how_it_was_loaded(qwen2_folder: Path) -> None:
    model: Any = load(qwen2_folder, NF4()).model
    assert not hasattr(model, "hf_quantizer")
    assert "quantization_config" not in model.config.to_dict()
    assert not model._keep_in_fp32_modules_strict


def test_a_head_of_its_own_can_be_codes_too(tmp_path: Path) -> None:
    folder = miniature("llama", tmp_path / "llama")
    base = load(folder, Int8(head=True))
    assert "lm_head.weight" in codes_of(base)
    assert "lm_head.weight" not in codes_of(load(folder, Int8()))
    assert base.fingerprint != load(folder, Int8()).fingerprint
    assert base.logits(base.hidden(flat_batch([5]))[0]).isfinite().all()


def test_a_tied_head_stays_as_it_is(qwen2_folder: Path) -> None:
    with pytest.raises(ModelError, match=r"head=true: the head of this model is its embedding"):
        load(qwen2_folder, Int8(head=True))


@pytest.mark.parametrize("kind", ["llama", "qwen3", "gemma3"])
def test_other_architectures(kind: str, tmp_path: Path) -> None:
    base = load(miniature(kind, tmp_path / kind), Int8())
    assert len(codes_of(base)) == 14
    assert base.hidden(flat_batch([9])).isfinite().all()


def test_a_damaged_weight_is_found(qwen2_folder: Path, tmp_path: Path) -> None:
    from graftlab.models.finite import describe_base

    folder = Path(shutil.copytree(qwen2_folder, tmp_path / "bad"))
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"][3, 4] = float("nan")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    assert "layers.1.mlp.up_proj.weight" in str(describe_base(load(folder, NF4())))
    assert describe_base(load(qwen2_folder, NF4())) is None


def test_models_that_cannot_be_quantised_say_so() -> None:
    from graftlab.adapters.draft import DraftModel

    with pytest.raises(ConfigError, match=r"quantization=int8 .* model=hf .* model=draft"):
        DraftModel(of="run", quantization=Int8())


def test_the_name_of_a_fingerprint_needs_no_weights(qwen2_folder: Path, tmp_path: Path) -> None:
    spec = HFModel(path=str(qwen2_folder), quantization=NF4())
    assert spec.fingerprint() == load(qwen2_folder, NF4()).fingerprint
    assert spec.fingerprint() != HFModel(path=str(qwen2_folder)).fingerprint()
    other = Path(shutil.copytree(qwen2_folder, tmp_path / "other"))
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"rope_theta": 500.0}))
    assert spec.fingerprint() != HFModel(path=str(other), quantization=NF4()).fingerprint()


def test_mixtures_of_experts_are_refused_before_they_are_read(
    qwen2_folder: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(qwen2_folder, tmp_path / "mixture"))
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.0.mlp.experts.0.up_proj.weight"] = torch.zeros(4, 4)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    HFModel(path=str(folder)).check()
    with pytest.raises(ModelError, match=r"mixture of experts .* quantization=int8"):
        HFModel(path=str(folder), quantization=Int8()).check()


@each_choice
def test_a_matrix_that_lies_the_other_way(choice: Codes, tmp_path: Path) -> None:
    """GPT-2 multiplies with (in, out); blocks and rows are still of the outputs."""
    from transformers import GPT2Config, GPT2LMHeadModel

    from graftlab.models.quantization.loading import CodesConfig

    torch.manual_seed(0)
    config = GPT2Config(n_embd=64, n_layer=2, n_head=4, vocab_size=100, n_positions=32)
    GPT2LMHeadModel(config).save_pretrained(tmp_path)
    asked = CodesConfig(choice, torch.float32, CPU)
    model: Any = GPT2LMHeadModel.from_pretrained(tmp_path, quantization_config=asked)
    plain: Any = GPT2LMHeadModel.from_pretrained(tmp_path)
    stored, weight = (each.transformer.h[1].mlp.c_fc.weight.data for each in (model, plain))
    assert isinstance(stored, QuantizedWeight)
    assert stored.shape == weight.shape == (64, 256)
    assert torch.equal(stored.wide(), choice.quantise(weight.T, torch.float32).wide().T)
    ids = torch.arange(5)[None]
    assert model(ids).logits.isfinite().all()
    assert (model(ids).logits - plain(ids).logits).abs().max() < 0.5
