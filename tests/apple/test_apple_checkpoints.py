"""Toolkit checkpoints: a round trip, files that are something else, and a disk that is full."""

from __future__ import annotations

import errno
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from graftlab.apple import checkpoints as toolkit
from graftlab.errors import ModelError

WRITTEN = {"adapter-final.pt", "adapter-final.pt.xxh3"}
NAME = "layers.segment_0.layer_0.attention.output_transform.adapters.base_adapter."


def adapter(dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    a, b = torch.randn(16, 4, generator=generator), torch.randn(4, 16, generator=generator)
    return {f"{NAME}b_transpose": b.to(dtype), f"{NAME}a_transpose": a.to(dtype)}


class Trap:
    """What a hostile checkpoint would hold: unpickling it leaves a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_what_is_written_is_read_back(dtype: torch.dtype, tmp_path: Path) -> None:
    state = adapter(dtype)
    toolkit.write(state, tmp_path / "checkpoints" / "adapter-final.pt")
    back = toolkit.read(tmp_path / "checkpoints" / "adapter-final.pt")
    assert list(back) == list(state)
    assert all(torch.equal(back[n], state[n]) and back[n].dtype == dtype for n in state)
    assert {p.name for p in (tmp_path / "checkpoints").iterdir()} == WRITTEN


def test_the_file_is_the_toolkits(tmp_path: Path) -> None:
    """A flat dict for plain `torch.load`, and a plain `torch.save` of one is read."""
    state = adapter()
    toolkit.write(state, tmp_path / "ours.pt")
    plain = torch.load(tmp_path / "ours.pt", weights_only=True)
    assert type(plain) is dict
    assert all(torch.equal(plain[name], state[name]) for name in state)
    torch.save(state, tmp_path / "theirs.pt")
    torch.save(state, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    for file in ("theirs.pt", "old.pt"):
        assert toolkit.read(tmp_path / file).keys() == state.keys()


def test_a_view_is_written_without_the_rest_of_its_storage(tmp_path: Path) -> None:
    big = torch.randn(1000, 16)
    toolkit.write({f"{NAME}a_transpose": big[:16]}, tmp_path / "a.pt")
    assert (tmp_path / "a.pt").stat().st_size < 4000
    assert torch.equal(toolkit.read(tmp_path / "a.pt")[f"{NAME}a_transpose"], big[:16])


def test_a_pickled_object_is_never_unpickled(tmp_path: Path) -> None:
    sprung = tmp_path / "sprung"
    torch.save({**adapter(), "extra": Trap(sprung)}, tmp_path / "zip.pt")
    (tmp_path / "bare.pt").write_bytes(pickle.dumps({**adapter(), "extra": Trap(sprung)}))
    for file in ("zip.pt", "bare.pt"):
        with pytest.raises(ModelError, match="pickled objects .* can run code .* not opened"):
            toolkit.read(tmp_path / file)
    assert not sprung.exists()
    torch.load(tmp_path / "zip.pt", weights_only=False)
    assert sprung.exists(), "the trap works"


@pytest.mark.parametrize("kept", [0, 100, 0.5, 0.99])
def test_a_truncated_file_is_called_that(kept: float, tmp_path: Path) -> None:
    toolkit.write(adapter(), tmp_path / "whole.pt")
    content = (tmp_path / "whole.pt").read_bytes()
    end = int(len(content) * kept) if isinstance(kept, float) else kept
    (tmp_path / "cut.pt").write_bytes(content[:end])
    with pytest.raises(ModelError, match=r"cut\.pt is cut off or damaged .*Copy it again"):
        toolkit.read(tmp_path / "cut.pt")


def ints() -> dict[str, Any]:
    return {name: tensor.to(torch.int8) for name, tensor in adapter().items()}


FOREIGN = {
    "a model": ({"embedding.weight": torch.zeros(2, 2)}, "holds no adapter: none of its 1"),
    "a list": ([torch.zeros(2)], "it holds a list, not tensors"),
    "a tensor": (torch.zeros(2), "it holds a Tensor, not tensors"),
    "empty": ({}, "it holds nothing"),
    "numbers": ({"adapter": 3}, "adapter is no tensor"),
    "ours": ({"adapter": {}, "adapter_config": {}}, "is a graftlab checkpoint"),
    "mixed": ({**adapter(), "norm.weight": torch.zeros(2)}, "norm.weight is not part of"),
    "integers": (ints(), r"b_transpose \(torch.int8\), .* are not of floating-point"),
}


@pytest.mark.parametrize("case", FOREIGN)
def test_a_foreign_file_is_refused_with_the_reason(case: str, tmp_path: Path) -> None:
    content, message = FOREIGN[case]
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(ModelError, match=message):
        toolkit.read(tmp_path / "other.pt")


def test_other_files_and_none(tmp_path: Path) -> None:
    (tmp_path / "notes.pt").write_text("rank 32, alpha 16\n", encoding="utf-8")
    with pytest.raises(ModelError, match=r"notes\.pt"):
        toolkit.read(tmp_path / "notes.pt")
    with pytest.raises(ModelError, match="there is no checkpoint at"):
        toolkit.read(tmp_path / "none.pt")


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), None], ids=str)
def test_a_full_disk_leaves_what_was_there(
    error: OSError | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`None` is how torch's own writer reports it."""
    file = tmp_path / "adapter-final.pt"
    toolkit.write(adapter(), file)
    before = file.read_bytes()

    def full(content: object, stream: Any) -> None:
        stream.write(b"half")
        raise error or RuntimeError("unexpected pos 64 vs 0 (No space left on device)")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(ModelError, match=r"cannot be written: .*No space left on device"):
        toolkit.write(adapter(torch.bfloat16), file)
    assert {p.name for p in tmp_path.iterdir()} == WRITTEN
    assert file.read_bytes() == before


def test_what_is_no_adapter_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="to be written holds no adapter"):
        toolkit.write({"head.weight": torch.zeros(2, 2)}, tmp_path / "a.pt")
    assert not list(tmp_path.iterdir())
