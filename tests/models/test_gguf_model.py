"""A GGUF file as the base: the model that it was made of, packed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gguf_files import ARCHITECTURES, write_gguf
from graftlab.adapters.attach import attach, check_lora
from graftlab.adapters.lora import Lora
from graftlab.errors import ConfigError, ModelError
from graftlab.models.gguf import GGUFModel
from graftlab.models.hf import HFModel
from graftlab.models.metadata import read_metadata
from graftlab.models.quantization.weight import QuantizedWeight
from miniatures import flat_batch

CPU = torch.device("cpu")
Make = Callable[..., Path]


@pytest.fixture(scope="module")
def make_file(make_miniature: Callable[[str], Path], tmp_path_factory: Any) -> Make:
    """`make_file("llama", kind="Q8_0")` is the path of that miniature's file."""

    def file(architecture: str, *, kind: str = "F32", **changes: Any) -> Path:
        path = tmp_path_factory.mktemp("gguf") / f"{architecture}-{kind}.gguf"
        return write_gguf(make_miniature(architecture), path, kind=kind, **changes)

    return file


def load(path: Path, dtype: torch.dtype = torch.float32, **options: Any) -> Any:
    return GGUFModel(path=str(path), **options).load(dtype=dtype, device=CPU)


def wide(base: Any) -> dict[str, torch.Tensor]:
    return {
        name: p.data.wide() if isinstance(p.data, QuantizedWeight) else p.data
        for name, p in base.model.named_parameters()
    }


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_it_is_the_model_that_the_file_was_made_of(
    make_file: Make, make_base: Callable[..., Any], architecture: str
) -> None:
    """Config, names, rotation and norms: all of them decide the logits."""
    batch = flat_batch([40, 23])
    own, original = load(make_file(architecture)), make_base(architecture)
    found, wanted = own.hidden(batch), original.hidden(batch)
    assert wanted.abs().mean() > 0.1
    torch.testing.assert_close(own.logits(found[0]), original.logits(wanted[0]))


# transformers' reader of Qwen3 takes every head to be 128 wide, and these are not.
@pytest.mark.parametrize("architecture", sorted({*ARCHITECTURES} - {"qwen3"}))
@pytest.mark.parametrize("kind", ["Q8_0", "Q5_0"])
def test_weights_are_those_of_transformers_own_reader(
    make_file: Make, architecture: str, kind: str
) -> None:
    from transformers import AutoModelForCausalLM, GgufConfig

    path = make_file(architecture, kind=kind)
    config = GgufConfig(gguf_file=path.name, dequantize=True)
    theirs = AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, quantization_config=config, dtype=torch.float32
    ).state_dict()
    found = wide(load(path))
    assert found.keys() <= theirs.keys()
    for name, values in found.items():
        assert torch.equal(values, theirs[name]), name


def test_matrices_stay_packed_and_norms_do_not(make_file: Make) -> None:
    base = load(make_file("llama", kind="Q4_1"), torch.bfloat16)
    for name, parameter in base.model.named_parameters():
        packed = isinstance(parameter.data, QuantizedWeight)
        assert packed == (parameter.ndim == 2), name
        assert parameter.dtype == torch.bfloat16
        if packed:
            (part,) = parameter.data.parts
            assert part.nbytes == parameter.numel() * 20 // 32


def test_blocks_lie_in_the_file_itself(make_file: Make) -> None:
    """What is written to the mapped bytes stays in memory; rows in another order are copied."""
    path = make_file("llama", kind="Q8_0")
    before = path.read_bytes()
    weights = dict(load(path).model.named_parameters())
    part = weights["model.layers.0.mlp.up_proj.weight"].data.parts[0]
    assert before.count(part.numpy().tobytes()) == 1
    part.zero_()
    assert path.read_bytes() == before


def test_dequantised_once_it_is_an_ordinary_model(make_file: Make) -> None:
    path = make_file("qwen2", kind="Q8_0")
    packed, plain = load(path), load(path, dequantize=True)
    assert not any(isinstance(p.data, QuantizedWeight) for p in plain.model.parameters())
    for name, values in wide(packed).items():
        assert torch.equal(values, wide(plain)[name])
    assert packed.fingerprint == plain.fingerprint


@pytest.mark.parametrize(
    "lora",
    [
        Lora(),
        Lora(dora=True),
        Lora(trainable_tokens=["<|im_end|>"]),
        Lora(targets=["q_proj"], modules_to_save=["down_proj"]),
    ],
)
def test_adapters_train_on_it_as_on_its_values(make_file: Make, lora: Lora) -> None:
    path, batch = make_file("gemma3", kind="Q8_0"), flat_batch([30, 20])
    results = []
    for options in ({}, {"dequantize": True}):
        base = load(path, **options)
        adapter = attach(base, lora, seed=1, dtype=torch.float32)
        base.set_checkpointing(False)
        for _, parameter in adapter.named_parameters():
            parameter.data.normal_(generator=torch.Generator().manual_seed(parameter.numel()))
        base.logits(base.hidden(batch)[0]).square().mean().backward()
        results.append({name: p.grad for name, p in adapter.named_parameters()})
        torch.optim.AdamW([p for _, p in adapter.named_parameters()], lr=1e-3).step()
    assert results[0]
    for name, grad in results[0].items():
        assert grad is not None
        assert grad.abs().sum() > 0
        torch.testing.assert_close(grad, results[1][name])


def test_llama_3_scaling_is_found_behind_its_factors(make_file: Make) -> None:
    """The file has the factors alone, as the converter computes them from the original config."""
    from transformers import AutoConfig

    path = make_file("llama")
    scaling = {
        "rope_type": "llama3",
        "rope_theta": 5e5,
        "factor": 32.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    original = AutoConfig.from_pretrained(GGUFModel(path=str(path)).folder())
    original.rope_parameters = scaling
    scaled = _inverse_frequencies(original)
    original.rope_parameters = {"rope_type": "default", "rope_theta": 5e5}
    factors = (_inverse_frequencies(original) / scaled).numpy()
    assert factors.min() == 1
    assert factors.max() == 32
    with_factors = add_tensor(path, "rope_freqs.weight", factors, theta=5e5)
    found = load(with_factors).model.model.rotary_emb.inv_freq
    torch.testing.assert_close(found, scaled)
    with pytest.raises(ModelError, match="not those of Llama 3.1"):
        GGUFModel(path=str(add_tensor(path, "rope_freqs.weight", factors[::-1], theta=5e5))).check()


def _inverse_frequencies(config: Any) -> torch.Tensor:
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    return LlamaRotaryEmbedding(config).inv_freq


def add_tensor(path: Path, name: str, values: np.ndarray, *, theta: float) -> Path:
    """A copy of a file of F32 tensors with one more."""
    import gguf

    from graftlab.models.gguf.file import map_file, read_gguf

    file, target = read_gguf(path), path.with_name(f"{name}-{values[0]:.0f}.gguf")
    writer = gguf.GGUFWriter(target, file.architecture)
    for key, value in (file.metadata | {"llama.rope.freq_base": theta}).items():
        if key != "general.architecture":
            add = writer.add_array if isinstance(value, list) else None
            kinds = {str: writer.add_string, int: writer.add_uint32, float: writer.add_float32}
            (add or kinds[type(value)])(key, value)
    for known, tensor in file.tensors.items():
        data = map_file(path)[tensor.offset : tensor.offset + tensor.num_bytes]
        writer.add_tensor(known, data.view(np.float32).reshape(tensor.shape))
    writer.add_tensor(name, values.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        (
            {"rope__scaling__type": "linear", "rope__scaling__factor": 4.0},
            {"rope_type": "linear", "factor": 4.0},
        ),
        ({"rope__scale_linear": 4.0}, {"rope_type": "linear", "factor": 4.0}),
        ({"rope__scaling__factor": 0.0}, {"rope_type": "default"}),
        (
            {
                "rope__scaling__type": "yarn",
                "rope__scaling__factor": 4.0,
                "rope__scaling__original_context_length": 512,
            },
            {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512},
        ),
    ],
)
def test_other_scalings_are_told_to_transformers(
    make_file: Make, changes: dict[str, Any], wanted: dict[str, Any]
) -> None:
    path = make_file("qwen2", **{f"qwen2__{key}": value for key, value in changes.items()})
    rope = load(path).model.config.rope_parameters
    assert wanted.items() <= rope.items()


def test_it_is_counted_and_targeted_by_its_header(make_file: Make, qwen2_folder: Path) -> None:
    spec = GGUFModel(path=str(make_file("qwen2", kind="Q4_0")))
    found, plain = read_metadata(spec), read_metadata(HFModel(path=str(qwen2_folder)))
    assert found.tensors == plain.tensors
    assert found.config["hidden_size"] == plain.config["hidden_size"]
    check_lora(spec, Lora(targets="attn"))
    with pytest.raises(ConfigError, match="q_porj"):
        check_lora(spec, Lora(targets=["q_porj"]))


def test_its_own_weights_are_not_trained(make_file: Make) -> None:
    spec = GGUFModel(path=str(make_file("qwen2")))
    with pytest.raises(ConfigError, match="lora=none .*frozen blocks"):
        check_lora(spec, Lora(full=True))


def test_the_fingerprint_tells_files_apart(make_file: Make) -> None:
    def key(**changes: Any) -> str:
        return GGUFModel(path=str(make_file("qwen2", **changes))).fingerprint()

    first = key(kind="Q8_0")
    assert first == key(kind="Q8_0")
    assert len(first) == 16
    others = [key(kind="Q5_0"), key(kind="Q8_0", tokenizer__ggml__pre="llama-bpe")]
    path = make_file("qwen2", kind="Q8_0")
    with path.open("r+b") as file:  # the end of the last tensor
        file.seek(-40, 2)
        file.write(b"\x55" * 8)
    others.append(GGUFModel(path=str(path)).fingerprint())
    assert len({first, *others}) == 4


def test_its_description_is_made_once(make_file: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = GGUFModel(path=str(make_file("qwen2")))
    folder = spec.folder()
    assert json.loads((folder / "config.json").read_text())["model_type"] == "qwen2"
    monkeypatch.setattr("graftlab.models.gguf.spec.describe", None)
    assert spec.folder() == folder
