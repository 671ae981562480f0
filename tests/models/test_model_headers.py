"""Folders that cannot be trained are told by their headers, in one message, before any loading."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from graftlab.cli.compose import build, compose
from graftlab.errors import ModelError
from graftlab.models.hf import HUB_FILES, HFModel
from graftlab.models.metadata import read_metadata
from graftlab.models.weights import INDEX, SINGLE, file_tensors

CPU = torch.device("cpu")
FULL = "nf4 and int8 alone are read: use the full-precision folder of"


@pytest.fixture
def folder(qwen2_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(qwen2_folder, tmp_path / "base"))


def configure(folder: Path, **fields: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))


def restore(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    tensors = load_file(folder / SINGLE)
    change(tensors)
    save_file(tensors, folder / SINGLE, metadata={"format": "pt"})


def refusal(folder: Path) -> str:
    """The message before anything is loaded; the same at loading."""
    with pytest.raises(ModelError) as early:
        HFModel(path=str(folder)).check()
    with pytest.raises(ModelError) as late:
        HFModel(path=str(folder)).load(dtype=torch.float32, device=CPU)
    assert str(early.value) == str(late.value)
    return str(early.value)


@pytest.mark.parametrize(
    ("fields", "how"),
    [
        ({"quantization_config": {"quant_method": "fp8", "activation_scheme": "dynamic"}}, "fp8"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "gptq, 4 bit"),
        ({"quantization_config": {"quant_method": "awq", "bits": 4}}, "awq, 4 bit"),
        (
            {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}},
            "bitsandbytes, fp4, 4 bit",
        ),
        (
            {
                "quantization_config": {
                    "load_in_4bit": True,
                    "quant_method": "bitsandbytes",
                    "bnb_4bit_quant_type": "nf4",
                    "bnb_4bit_quant_storage": "bfloat16",
                }
            },
            "bitsandbytes, nf4 in bfloat16, 4 bit",
        ),
        ({"quantization_config": {"quant_method": "mxfp4"}}, "mxfp4"),
        ({"compression_config": {"quant_method": "compressed-tensors"}}, "compressed-tensors"),
        ({"quantization": {"group_size": 64, "bits": 4}}, "MLX"),
        ({"text_config": {"quantization_config": {"quant_method": "torchao"}}}, "torchao"),
    ],
)
def test_a_quantised_folder_says_so_in_its_config(
    folder: Path, fields: dict[str, Any], how: str
) -> None:
    configure(folder, **fields)
    (folder / SINGLE).unlink()  # config.json alone decides
    message = refusal(folder)
    assert f"is quantised ({how}, config.json" in message
    assert FULL in message


@pytest.mark.parametrize("key", ["_name_or_path", "base_model"])
@pytest.mark.parametrize(
    "config",
    [
        {"quantization_config": {"quant_method": "gptq", "bits": 4}},
        {"quantization_config": {"quant_method": "awq", "bits": 4}},
        {"quantization_config": {"quant_method": "fp8"}},
        {"quantization_config": {"quant_method": "compressed-tensors", "format": "pack-quantized"}},
        {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}},
        {"quantization": {"group_size": 64, "bits": 4}},
    ],
)
def test_the_base_to_take_instead_is_named(folder: Path, config: dict[str, Any], key: str) -> None:
    configure(folder, **config, **{key: "Qwen/Qwen2.5-7B-Instruct"})
    told = refusal(folder)
    assert "full-precision folder of Qwen/Qwen2.5-7B-Instruct" in told
    assert "model.hub=Qwen/Qwen2.5-7B-Instruct" in told
    for unknown in ("/home/somebody/model", "somebody/Qwen2.5-7B-GPTQ-Int4", "x/y-bnb-4bit", 3):
        configure(folder, **{key: unknown})
        assert "full-precision folder of the same model" in refusal(folder)


def test_the_weights_of_a_quantised_hub_model_are_not_fetched(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched = []

    def download(hub: str, revision: str | None, *, files: Sequence[str] = HUB_FILES) -> Path:
        fetched.append("*.safetensors" in files)
        return folder

    monkeypatch.setattr("graftlab.models.hf._download", download)
    spec = HFModel(hub="somebody/something")
    assert spec.folder() == folder
    assert fetched == [False, True]
    configure(folder, quantization_config={"quant_method": "fp8"})
    with pytest.raises(ModelError, match=r"is quantised \(fp8"):
        spec.folder()
    assert fetched == [False, True, False]


def test_a_plan_of_a_quantised_folder_is_refused(folder: Path) -> None:
    configure(folder, quantization={"bits": 4})
    words = ["model=hf", f"model.path={folder}", "run_dir=run"]
    with pytest.raises(ModelError, match=FULL):
        read_metadata(build(compose("plan", words)).model)


def test_older_exporters_have_a_file_of_their_own(folder: Path) -> None:
    (folder / "quantize_config.json").write_text("{}")
    told = refusal(folder)
    assert "is quantised (gptq, quantize_config.json). " in told
    assert FULL in told


def _fp8(tensors: dict[str, torch.Tensor]) -> None:
    name = "model.layers.0.mlp.up_proj.weight"
    tensors[name] = tensors[name].to(torch.float8_e4m3fn)


def _mlx(tensors: dict[str, torch.Tensor]) -> None:
    stem = "model.layers.0.mlp.up_proj"
    tensors[f"{stem}.weight"] = torch.zeros(128, 8, dtype=torch.uint32)
    tensors[f"{stem}.scales"] = tensors[f"{stem}.biases"] = torch.ones(128, 1)
    tensors[f"{stem}.biases"] = torch.zeros(128, 1)


def _gptq(tensors: dict[str, torch.Tensor]) -> None:
    stem = "model.layers.0.mlp.up_proj"
    del tensors[f"{stem}.weight"]
    tensors[f"{stem}.qweight"] = torch.zeros(8, 128, dtype=torch.int32)


def _packed(tensors: dict[str, torch.Tensor]) -> None:
    stem = "model.layers.0.mlp.up_proj"
    tensors[f"{stem}.weight_packed"] = torch.zeros(128, 8, dtype=torch.int32)


def _nf4(tensors: dict[str, torch.Tensor]) -> None:
    stem = "model.layers.0.mlp.up_proj"
    tensors[f"{stem}.weight"] = torch.zeros(4096, 1, dtype=torch.uint8)
    tensors[f"{stem}.weight.absmax"] = torch.zeros(128)


@pytest.mark.parametrize("change", [_fp8, _mlx, _gptq, _packed, _nf4])
def test_a_quantised_folder_shows_it_in_its_tensors(
    folder: Path, change: Callable[[dict[str, torch.Tensor]], None]
) -> None:
    restore(folder, change)
    message = refusal(folder)
    assert "is quantised (" in message
    assert "model.layers.0.mlp.up_proj." in message
    assert FULL in message


def test_sixteen_bits_beside_thirty_two_are_fine(folder: Path) -> None:
    def mix(tensors: dict[str, torch.Tensor]) -> None:
        for number, name in enumerate(tensors):
            tensors[name] = tensors[name].to((torch.float16, torch.bfloat16)[number % 2])
        tensors["model.norm.weight"] = tensors["model.norm.weight"].float()
        tensors["model.rotary.position_ids"] = torch.arange(8)

    restore(folder, mix)
    base = HFModel(path=str(folder)).load(dtype=torch.float32, device=CPU)
    assert {p.dtype for p in base.model.parameters()} == {torch.float32}


def test_config_and_weights_must_agree(folder: Path) -> None:
    rows = json.loads((folder / "config.json").read_text())["vocab_size"]
    configure(folder, vocab_size=rows + 24, num_hidden_layers=1)
    message = refusal(folder)
    assert f"vocab_size {rows + 24}, model.embed_tokens.weight has {rows} rows" in message
    assert "num_hidden_layers 1, the weights have 2" in message  # one layer would be left out
    configure(folder, vocab_size=rows, num_hidden_layers=2)
    HFModel(path=str(folder)).check()
    configure(folder, num_hidden_layers=1, num_nextn_predict_layers=1)
    HFModel(path=str(folder)).check()


def test_a_depth_beyond_the_weights_is_refused_before_it_is_built(folder: Path) -> None:
    configure(folder, num_hidden_layers=2**31, layer_types=None)
    assert f"num_hidden_layers {2**31}, the weights have 2" in refusal(folder)


@pytest.mark.parametrize("found", ["text", [1]])
def test_a_text_config_is_an_object(folder: Path, found: Any) -> None:
    configure(folder, text_config=found)
    assert "text_config in config.json is" in refusal(folder)


@pytest.mark.parametrize(
    "fields", [{"num_key_value_heads": 0}, {"hidden_size": -64}, {"num_hidden_layers": "two"}]
)
def test_a_config_that_makes_no_model_is_told(folder: Path, fields: dict[str, Any]) -> None:
    configure(folder, **fields)
    with pytest.raises(ModelError, match="base cannot be loaded") as caught:
        HFModel(path=str(folder)).load(dtype=torch.float32, device=CPU)
    assert "\n" not in str(caught.value)
    if "num_hidden_layers" in fields:
        with pytest.raises(ModelError, match="does not load: .*num_hidden_layers"):
            HFModel(path=str(folder)).load_tokenizer()


@pytest.mark.parametrize("template", [5, {"default": 5}])
def test_a_chat_template_is_a_text(folder: Path, template: Any) -> None:
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "chat_template": template}))
    with pytest.raises(ModelError, match="is no text"):
        HFModel(path=str(folder)).load_tokenizer()


def test_other_shapes_are_named_rather_than_drawn_anew(folder: Path) -> None:
    configure(folder, intermediate_size=96)
    with pytest.raises(ModelError, match=r"other shapes.*mlp\.\w+_proj\.weight is \(\d+, \d+\)"):
        HFModel(path=str(folder)).load(dtype=torch.float32, device=CPU)


def test_weights_without_a_place_are_not_left_out(folder: Path) -> None:
    def norm(tensors: dict[str, torch.Tensor]) -> None:  # as Qwen3 has it
        tensors["model.layers.0.self_attn.q_norm.weight"] = torch.ones(16)

    def table(tensors: dict[str, torch.Tensor]) -> None:  # as old Llamas have it
        del tensors["model.layers.0.self_attn.q_norm.weight"]
        tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(8)

    spec = HFModel(path=str(folder))
    restore(folder, norm)
    with pytest.raises(ModelError, match=r"1 tensors that a Qwen2ForCausalLM has no .*q_norm"):
        spec.load(dtype=torch.float32, device=CPU)
    restore(folder, table)
    spec.load(dtype=torch.float32, device=CPU)


def add_token(folder: Path, token: str, *, special: bool) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens([token], special_tokens=special)
    tokenizer.save_pretrained(folder)


def test_ids_without_an_embedding_are_refused(folder: Path) -> None:
    spec = HFModel(path=str(folder))
    spec.load_tokenizer()
    add_token(folder, "<image>", special=True)
    spec.load_tokenizer()  # no text may hold it, and no template writes it
    add_token(folder, "zeppelin", special=False)
    with pytest.raises(ModelError, match=r"no embedding for: 'zeppelin' is 401, .*400 rows"):
        spec.load_tokenizer()


def test_the_tokenizer_of_an_adapter_is_held_against_its_base(
    folder: Path, qwen2_folder: Path
) -> None:
    add_token(folder, "zeppelin", special=False)
    with pytest.raises(ModelError, match=f"{folder}: the tokenizer .*'zeppelin' is 400"):
        HFModel(path=str(qwen2_folder)).load_tokenizer(folder)


def test_a_template_that_writes_such_a_token_is_refused(folder: Path) -> None:
    add_token(folder, "<|end|>", special=True)
    template = folder / "chat_template.jinja"
    template.write_text(template.read_text().replace("<|im_end|>", "<|end|>"))
    with pytest.raises(ModelError, match=r"'<\|end\|>' is 400"):
        HFModel(path=str(folder)).load_tokenizer()


def split(folder: Path) -> Iterator[Path]:
    """The weights as two shards with an index."""
    tensors = load_file(folder / SINGLE)
    (folder / SINGLE).unlink()
    places = {}
    for number in (1, 2):
        part = dict(list(tensors.items())[number - 1 :: 2])
        file = folder / f"model-0000{number}-of-00002.safetensors"
        save_file(part, file, metadata={"format": "pt"})
        places |= dict.fromkeys(part, file.name)
        yield file
    (folder / INDEX).write_text(json.dumps({"weight_map": places}))


def test_shards_are_told_apart(folder: Path) -> None:
    first, second = split(folder)
    HFModel(path=str(folder)).check()
    whole = load_file(second)
    name, *others = whole
    save_file({n: whole[n] for n in others}, second)
    assert f"{INDEX} names 1 tensors that no file holds ({name})" in refusal(folder)
    second.unlink()
    assert f"names 2 files, of which 1 are not there ({second.name})" in refusal(folder)
    (folder / INDEX).write_text('{"weight_map": 3}')
    assert "lists no files under weight_map" in refusal(folder)
    (folder / INDEX).unlink()
    assert f"parts of a model but not {INDEX}" in refusal(folder)
    assert first.is_file()


def test_what_lies_there_instead_is_named(folder: Path) -> None:
    (folder / SINGLE).rename(folder / "consolidated.safetensors")
    assert "consolidated.safetensors, written by another program" in refusal(folder)
    (folder / "pytorch_model.bin").write_bytes(b"")
    assert "pickle" in refusal(folder)
    (folder / "model-q4.gguf").write_bytes(b"GGUF")
    assert "GGUF" in refusal(folder)
    (folder / "adapter_config.json").write_text("{}")
    assert "is an adapter, not a model" in refusal(folder)


def test_files_that_end_early_are_told(folder: Path) -> None:
    weights = folder / SINGLE
    whole = weights.read_bytes()
    for end, said in ((100, "ends within its header"), (len(whole) - 1, "bytes of"), (5, "not a")):
        weights.write_bytes(whole[:end])
        assert said in refusal(folder)
    weights.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    assert "Git LFS pointer" in refusal(folder)
    header = json.dumps({"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}}).encode()
    weights.write_bytes(struct.pack("<Q", len(header)) + header + bytes(8))
    with pytest.raises(ModelError, match=r"F32 \[3\] does not take 8 bytes"):
        file_tensors(weights)
