"""llama-quantize and llama-server on the PATH, where the wheel of xllamacpp is missing."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import gated
from afm_adapters import hf_run
from chats import chats
from graftlab.errors import ModelError
from graftlab.exports.gguf import GGUF, quantising
from graftlab.exports.gguf.importance import FILE
from graftlab.exports.gguf_lora import GGUFLora
from graftlab.exports.parity.record import AS_TRAINED
from graftlab.exports.runtimes import llama_cpp
from graftlab.exports.runtimes.base import NotHere
from graftlab.exports.source import load
from graftlab.models.gguf.file import read_gguf
from miniatures import miniature
from trained_runs import trained_run

pytest.importorskip("xllamacpp")
pytestmark = [pytest.mark.filterwarnings(warning) for warning in gated.WARNINGS]
SERVER = Path(__file__).parents[1] / "llama_server_program.py"


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is the whole PATH but for the system's own."""
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return folder


def program(folder: Path, name: str, *lines: str) -> None:
    file = folder / name
    file.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    file.chmod(0o755)


def test_llama_quantize_makes_the_types(
    programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = {"choice": "jsonl", "train": str(chats(tmp_path / "train.jsonl", 4))}
    run = trained_run(tmp_path / "run", miniature("llama", tmp_path / "base"), data=data)
    adapter, target = load(str(run)), GGUF(quant="q4_0", imatrix_rows=2)
    by_wheel, out = tmp_path / "wheel" / "out", tmp_path / "out"
    gated.write(target, adapter, by_wheel)
    monkeypatch.setattr(quantising, "_library", lambda: None)
    program(
        programs,
        "llama-quantize",
        f'echo "$@" > {tmp_path}/words',
        f"cp wide.gguf {tmp_path}/wide.gguf && cp {by_wheel}/model.gguf model.gguf",
    )
    gated.write(target, adapter, out)
    words = (tmp_path / "words").read_text().split()
    assert words[:5] == ["--imatrix", FILE, "wide.gguf", "model.gguf", "Q4_0"]
    assert int(words[5]) >= 1
    wide = read_gguf(tmp_path / "wide.gguf")
    assert {tensor.dtype for tensor in wide.tensors.values()} == {"F32"}
    assert wide.metadata["general.file_type"] == 0
    assert not [key for key in wide.metadata if key.startswith("quantize.")]
    assert target.verify(adapter, out)[0].startswith("14 of ")
    names = {file.name for file in out.iterdir()}
    assert names == {"model.gguf", FILE, "checksums.json"}, "what it read is gone"
    # Blocks of another model are found by their values, though nothing here makes them.
    other = load(str(trained_run(tmp_path / "other", tmp_path / "base", data=data, seed=5)))
    with pytest.raises(ModelError, match=r"reads as another matrix than was merged"):
        target.verify(other, out)


def test_what_llama_quantize_says_is_told(
    programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = load(str(hf_run(tmp_path / "made", "llama")))
    monkeypatch.setattr(quantising, "_library", lambda: None)
    program(programs, "llama-quantize", "echo 'no room on it' >&2", "exit 3")
    with pytest.raises(ModelError, match=r"made no Q4_0 of it \(exit code 3\): no room on it"):
        gated.write(GGUF(quant="q4_0"), adapter, tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_a_server_that_does_not_start_is_told(
    programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(llama_cpp, "_has_wheel", lambda: False)
    found = llama_cpp.llama_cpp(tmp_path / "model.gguf")
    assert isinstance(found, NotHere)
    assert found.why.endswith("or llama-server on the PATH")
    program(programs, "llama-server", "echo 'unknown model architecture' >&2", "exit 1")
    found = llama_cpp.llama_cpp(tmp_path / "model.gguf")
    assert not isinstance(found, NotHere)
    assert found.name == "llama.cpp (llama-server)"
    wanted = r"does not load model.gguf \(exit code 1\): unknown model architecture"
    with pytest.raises(ModelError, match=wanted), found.opened():
        pass


@pytest.mark.slow
def test_llama_server_is_asked(
    programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process of its own, with llama.cpp's server in it."""
    monkeypatch.setattr(llama_cpp, "_has_wheel", lambda: False)
    program(programs, "llama-server", f'exec {sys.executable} {SERVER} "$@"')
    run = hf_run(tmp_path / "made", "llama")
    for name, target in (("gguf", GGUF(quant="f32")), ("lora", GGUFLora(base="f32"))):
        report = gated.gated(target, run, tmp_path / name, tokens=6)
        assert report.verdict == AS_TRAINED, report.why
        assert report.measured is not None
        assert report.measured.runtime == "llama.cpp (llama-server)"
        assert report.measured.kl < 1e-5 < report.measured.moved
