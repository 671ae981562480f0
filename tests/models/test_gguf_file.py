"""Reading a GGUF file's header, and what is said of files that are none."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gguf_files import gguf, write_gguf
from graftlab.errors import ConfigError, ModelError
from graftlab.models.gguf import GGUFModel
from graftlab.models.gguf.file import map_file, read_gguf
from graftlab.models.weights import weight_files


@pytest.fixture(scope="module")
def whole(make_miniature: Callable[[str], Path], tmp_path_factory: Any) -> Path:
    """A good file."""
    path = tmp_path_factory.mktemp("whole") / "qwen2.gguf"
    return write_gguf(make_miniature("qwen2"), path, kind="Q8_0")


def refused(path: Path, message: str, **options: Any) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        GGUFModel(path=str(path), **options).check()
    assert str(path.name) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_header_is_read_as_gguf_py_reads_it(whole: Path) -> None:
    theirs, found = gguf.GGUFReader(whole), read_gguf(whole)
    for key, field in theirs.fields.items():
        if not key.startswith("GGUF."):
            assert found.metadata[key] == field.contents(), key
    assert len(found.tensors) == len(theirs.tensors) > 20
    for tensor in theirs.tensors:
        own = found.tensors[tensor.name]
        assert own.dtype == tensor.tensor_type.name
        assert own.shape == tuple(tensor.shape[::-1])
        data = map_file(whole)[own.offset : own.offset + own.num_bytes]
        assert np.array_equal(data, tensor.data.reshape(-1).view(np.uint8))


@pytest.mark.parametrize("share", [0.0001, 0.01, 0.3, 0.9, 0.9999])
def test_a_file_that_is_cut_short_is_told(whole: Path, tmp_path: Path, share: float) -> None:
    data, path = whole.read_bytes(), tmp_path / "cut.gguf"
    path.write_bytes(data[: int(len(data) * share)])
    refused(path, "is cut short")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"PK\x03\x04 a zip", "is not a GGUF file: it begins with"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        (b"GGUF" + struct.pack("<I", 1) + b"\0" * 40, "version 1 of the format"),
        (b"GGUF" + struct.pack(">I", 3) + b"\0" * 40, "big-endian"),
        (b"GGUF" + struct.pack("<IQQ", 3, 2**60, 2**60) + b"\0" * 64, "cut short|not a readable"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 2**62) + b"\0" * 64, "is cut short"),
    ],
)
def test_what_is_no_gguf_is_told(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    refused(path, message)


def test_damage_in_the_header_is_one_message(whole: Path, tmp_path: Path) -> None:
    """Bytes of the header are overwritten in many places; each is read or refused, in time."""
    data = bytearray(whole.read_bytes())
    rng = np.random.default_rng(0)
    path, told = tmp_path / "damaged.gguf", list[str]()
    for place in rng.integers(8, 3000, 150):
        damaged = bytearray(data)
        damaged[place : place + 4] = rng.bytes(4)
        path.write_bytes(damaged)
        try:
            GGUFModel(path=str(path)).check()
        except ModelError as error:
            told.append(str(error))
    assert len(told) > 50
    assert not any("\n" in message for message in told)


def test_unknown_types_and_kinds_are_named(
    whole: Path, tmp_path: Path, make_miniature: Callable[[str], Path]
) -> None:
    def changed(name: str, **changes: Any) -> Path:
        return write_gguf(make_miniature("qwen2"), tmp_path / f"{name}.gguf", **changes)

    refused(changed("vision", general__type="mmproj"), "is an mmproj file")
    refused(changed("lora", general__type="adapter"), "of the type adapter")
    refused(changed("mamba", architecture="mamba"), "architecture mamba.*gemma3")
    refused(changed("experts", qwen2__expert_count=8), "mixture of experts")
    refused(changed("rope", qwen2__rope__scaling__type="spiral"), "by spiral")
    refused(changed("short", qwen2__block_count=None), "does not say qwen2.block_count")
    data = whole.read_bytes()
    name = b"blk.0.ffn_up.weight"
    place = data.index(name) + len(name) + 4 + 16  # past the shape: the number of its type
    assert struct.unpack_from("<I", data, place) == (8,)
    for number, told in ((16, "IQ2_XXS"), (99, "number 99")):
        path = tmp_path / f"{number}.gguf"
        path.write_bytes(data[:place] + struct.pack("<I", number) + data[place + 4 :])
        refused(path, f"of the type {told}.*Q4_K")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"general__alignment": [32]}, r"alignment is \[32\]"),
        ({"general__alignment": float("inf")}, "alignment is inf"),
        ({"qwen2__block_count": 2**31 - 1}, "block_count is 2,147,483,647, and it holds 2 layers"),
        ({"qwen2__block_count": True}, "block_count is True"),
        ({"qwen2__attention__head_count": 2**30}, "attn_output.weight is .* by the metadata"),
        ({"qwen2__attention__head_count_kv": float("nan")}, "head_count_kv is nan"),
        ({"qwen2__attention__head_count_kv": 3}, "cannot share 3"),
        ({"qwen2__attention__key_length": float("inf")}, "key_length is inf"),
        ({"qwen2__feed_forward_length": 2**30}, "ffn_down.weight is .* by the metadata"),
        ({"qwen2__attention__layer_norm_rms_epsilon": float("nan")}, "rms_epsilon is nan"),
        ({"qwen2__rope__freq_base": -1.0}, "freq_base is -1.0"),
        ({"qwen2__rope__dimension_count": 8}, "dimension_count is 8 for heads of 16"),
    ],
)
def test_metadata_that_makes_no_model_is_named(
    make_miniature: Callable[[str], Path], tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    """Without building a model of that size, which may never end."""
    refused(write_gguf(make_miniature("qwen2"), tmp_path / "odd.gguf", **changes), message)


def test_tensors_lie_apart_and_aligned(whole: Path, tmp_path: Path) -> None:
    data, path = whole.read_bytes(), tmp_path / "moved.gguf"
    name = b"blk.0.ffn_up.weight"
    place = data.index(name) + len(name) + 4 + 16 + 4  # past shape and type: its offset
    (offset,) = struct.unpack_from("<Q", data, place)
    for moved, message in ((offset + 3, "at no multiple of"), (0, "begins within")):
        path.write_bytes(data[:place] + struct.pack("<Q", moved) + data[place + 8 :])
        refused(path, message)


def test_parts_that_are_none_or_lie_in_another_order(whole: Path, tmp_path: Path) -> None:
    for name in ("m-00001-of-00000.gguf", "m-00004-of-00003.gguf"):
        (tmp_path / name).write_bytes(whole.read_bytes())
        refused(tmp_path / name, "cannot be a part of a model")
    first, second, _ = split(whole, tmp_path)
    kept = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(kept)
    refused(first, "not the part of a model that its name says")


def test_tensors_too_many_or_too_few_are_named(whole: Path, tmp_path: Path) -> None:
    data, path = whole.read_bytes(), tmp_path / "renamed.gguf"
    path.write_bytes(data.replace(b"blk.0.ffn_up.weight", b"blk.0.ffn_xy.weight"))
    refused(path, "blk.0.ffn_xy.weight.*no place for")
    fewer = tmp_path / "fewer.gguf"
    fewer.write_bytes(data.replace(b"blk.1.", b"blk.7."))
    with pytest.raises(ModelError, match="lacks .* tensors of a Qwen2ForCausalLM: blk.1"):
        load(fewer)


def load(path: Path) -> Any:
    import torch

    return GGUFModel(path=str(path)).load(dtype=torch.float32, device=torch.device("cpu"))


def test_a_split_model_is_read_from_any_of_its_parts(
    whole: Path, tmp_path: Path, make_miniature: Callable[[str], Path]
) -> None:
    parts = split(whole, tmp_path)
    assert len(parts) == 3
    for part in parts:
        spec = GGUFModel(path=str(part))
        spec.check()
        assert spec.fingerprint() == GGUFModel(path=str(whole)).fingerprint()
        assert spec.weight_files() == parts
    ours = load(whole).model.state_dict()
    theirs = load(parts[1]).model.state_dict()
    assert all((ours[name] == theirs[name]).all() for name in ours)
    parts[1].unlink()
    refused(parts[0], "is a part of a model in 3 files, of which 1 are not.*00002-of-00003")


def split(path: Path, folder: Path) -> list[Path]:
    """The file's tensors in three files, as llama-gguf-split writes them."""
    file = read_gguf(path)
    names = list(file.tensors)
    written = []
    for number in range(3):
        target = folder / f"model-{number + 1:05}-of-00003.gguf"
        writer = gguf.GGUFWriter(target, file.architecture)
        told = {k: v for k, v in file.metadata.items() if k != "general.architecture"}
        for key, value in told.items() if number == 0 else ():
            kinds = {str: writer.add_string, int: writer.add_uint32, float: writer.add_float32}
            (writer.add_array if isinstance(value, list) else kinds[type(value)])(key, value)
        writer.add_uint16("split.no", number)
        writer.add_uint16("split.count", 3)
        writer.add_int32("split.tensors.count", len(names))
        for name in names[number::3]:
            tensor = file.tensors[name]
            data = map_file(path)[tensor.offset : tensor.offset + tensor.num_bytes]
            rows = data.reshape(tensor.shape[0], -1) if len(tensor.shape) == 2 else data
            kind = gguf.GGMLQuantizationType[tensor.dtype]
            if tensor.dtype == "F32":
                writer.add_tensor(name, data.view(np.float32).reshape(tensor.shape))
            else:
                writer.add_tensor(name, rows, raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        written.append(target.resolve())
    return written


def test_paths_that_name_no_file_are_told(whole: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"is a folder.*It holds qwen2.gguf"):
        GGUFModel(path=str(whole.parent)).check()
    with pytest.raises(ModelError, match="no such file.*qwen2.gguf"):
        GGUFModel(path=str(whole.with_name("qwen.gguf"))).check()
    for options in ({}, {"path": "x.gguf", "package": "gemma-3-270m"}):
        with pytest.raises(ConfigError, match="exactly one of model.path"):
            GGUFModel(**options)
    with pytest.raises(ModelError, match="model=gguf model.path=FILE.gguf"):
        weight_files(whole.parent)


def test_without_a_chat_template_one_is_asked_for(
    tmp_path: Path, make_miniature: Callable[[str], Path]
) -> None:
    path = write_gguf(make_miniature("qwen2"), tmp_path / "base.gguf", template=False)
    refused(path, "brings no chat template.*model.template=chatml")
    GGUFModel(path=str(path), template="chatml").check()
