"""llama-quantize and llama-server on the PATH, where the wheel of xllamacpp is missing."""

from __future__ import annotations

import dataclasses
import os
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

import gated
from afm_adapters import hf_run
from chats import chats
from graftlab.errors import Interrupted, ModelError
from graftlab.exports import programs as running_programs
from graftlab.exports.gguf import GGUF, quantising
from graftlab.exports.gguf import program as making
from graftlab.exports.gguf.draft import Draft
from graftlab.exports.gguf.importance import FILE
from graftlab.exports.gguf.writing import Entry, write_gguf
from graftlab.exports.gguf_lora import GGUFLora
from graftlab.exports.parity.record import AS_TRAINED
from graftlab.exports.programs import running
from graftlab.exports.runtimes import llama_cpp
from graftlab.exports.runtimes.base import NotHere
from graftlab.exports.runtimes.llama_api import Api
from graftlab.exports.source import load
from graftlab.models.gguf.file import read_gguf
from miniatures import miniature
from trained_runs import trained_run

pytest.importorskip("xllamacpp")
pytestmark = [pytest.mark.filterwarnings(warning) for warning in gated.WARNINGS]
ZEROS = np.zeros((32, 32), np.float32)
FIELDS = {field.name for field in dataclasses.fields(Draft) if field.init} - {"quant"}
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


FAULTS = {
    "exit 0": r"made no Q4_0 of it \(exit code 0\)",
    "kill -9 $$": r"made no Q4_0 of it \(killed by SIGKILL\)",
    "head -c 3000 wide.gguf > model.gguf": r"llama-quantize made no Q4_0 of it: .*model\.gguf",
    "echo no model > model.gguf": r"llama-quantize made no Q4_0 of it: .*model\.gguf",
    "mkdir model.gguf": r"made no Q4_0 of it \(exit code 0\)",
    "ln -s wide.gguf model.gguf": r"made no Q4_0 of it \(exit code 0\)",
    "yes 'go on' | head -c 5000000; exit 1": r"\(exit code 1\): .{,20}go on go on",
    "sleep 60": r"nothing more was written for 0.3 s \(it was stopped\)|killed by SIGTERM",
    "trap '' TERM; sleep 60 & echo $! > pid; wait": "nothing more was written for 0.3 s",
}


def lives(stat: Path) -> bool:
    """Whether the process of a /proc/PID/stat is there, and no zombie."""
    try:
        return stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("fault", FAULTS)
def test_a_quantiser_that_fails_is_one_message(
    programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    monkeypatch.setattr(making, "STILL", 0.3)
    monkeypatch.setattr(running_programs, "ENDING", 0.3)
    wide = tmp_path / "wide.gguf"
    write_gguf(wide, {"general.architecture": "llama"}, {"a": Entry("F32", (32, 32))}, [ZEROS])
    program(programs, "llama-quantize", fault)
    with pytest.raises(ModelError, match=FAULTS[fault]):
        making._run(Draft(**dict.fromkeys(FIELDS), quant="q4_0"), tmp_path / "model.gguf")
    if (tmp_path / "pid").exists():  # of what it had started itself
        stat = Path("/proc", (tmp_path / "pid").read_text().strip(), "stat")
        until = time.monotonic() + 10.0
        while lives(stat):
            assert time.monotonic() < until, "killed, and gone as soon as it has a turn"
            time.sleep(0.01)


def test_programs_that_cannot_be_started(programs: Path) -> None:
    file = programs / "llama-quantize"
    for content in ("neither a program nor a script", "#!/nowhere/sh"):
        file.write_text(content)
        file.chmod(0o755)
        with pytest.raises(ModelError, match="cannot be started"), running([str(file)]):
            pass


def test_a_signal_ends_a_program_too(programs: Path) -> None:
    program(programs, "llama-server", "sleep 60")
    started = []

    def wait() -> None:
        with running([str(programs / "llama-server")]) as one:
            started.append(one)
            os.kill(os.getpid(), signal.SIGTERM)
            one.code(int, still=30)

    with pytest.raises(Interrupted) as stop:
        wait()
    assert stop.value.exit_code == 143
    assert started[0].ended


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("HTTP/1.0 200 OK\r\n\r\n<html>", "answers /tokenize in another form"),
        ('HTTP/1.0 200 OK\r\n\r\n{"ids": [1]}', "answers /tokenize in another form"),
        ('HTTP/1.0 200 OK\r\n\r\n{"tokens": ["a"]}', "answers /tokenize in another form"),
        ("HTTP/1.0 200 OK\r\nContent-Length: 9\r\n\r\n{", "answers /tokenize in another form"),
        ("nonsense", "gives no answer to /tokenize"),
        ("", "gives no answer to /tokenize"),
    ],
)
def test_a_server_of_another_kind_is_one_message(answer: str, said: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            with listening.accept()[0] as one:
                one.recv(65536)
                one.sendall(answer.encode())
                one.shutdown(socket.SHUT_WR)
                with suppress(ConnectionError):
                    while one.recv(65536):  # what is left unread would reset the connection
                        pass

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(ModelError, match=said):
            Api(f"http://127.0.0.1:{listening.getsockname()[1]}").tokens("a", special=False)
        thread.join()


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
