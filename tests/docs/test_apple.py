"""The commands of docs/apple.md: each composes, and the walk is walked."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from composing import composed
from graftlab.apple.toolkit.answer import translated
from graftlab.apple.toolkit.read import read
from graftlab.cli.main import main

PAGE = (Path(__file__).parents[2] / "docs" / "apple.md").read_text(encoding="utf-8")
FENCE = re.compile(r"^```bash\n(.*?)^```", re.DOTALL | re.MULTILINE)
COMMANDS = [
    line
    for block in FENCE.findall(PAGE)
    for line in block.replace("\\\n", " ").splitlines()
    if line.startswith("graftlab ")
]
(SCHEMA,) = re.findall(r"^```json\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
WALK = [line for line in COMMANDS if "walk/" in line]


def test_there_is_something_to_walk() -> None:
    assert len(COMMANDS) >= 15
    verbs = [shlex.split(line)[1] for line in WALK]
    assert verbs[0] == "train"
    assert {"train", "sample", "export"} == set(verbs)
    assert sum(line.startswith("graftlab toolkit") for line in COMMANDS) == 5


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_composes(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GRAFTLAB_AFM_ASSETS", "ASSETS")
    for name in (
        "adapter-epoch3.pt",
        "adapter-best.pt",
        "adapter-final.pt",
        "draft-model-final.pt",
    ):
        (tmp_path / "checkpoints").mkdir(exist_ok=True)
        (tmp_path / "checkpoints" / name).touch()
    (tmp_path / "walk").mkdir()
    (tmp_path / "walk" / "track.json").write_text(SCHEMA)
    _, verb, *typed = shlex.split(command, comments=True)
    if verb == "toolkit":
        verb, *typed = translated(read(typed))
    assert composed(verb, *(word for word in typed if not word.startswith("hydra.")))


@pytest.mark.slow
def test_the_walk_is_walked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Command by command, with less training than a reader does."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "walk").mkdir()
    (tmp_path / "walk" / "track.json").write_text(SCHEMA)
    less = {
        "train": ["max_steps=4", "data.limit=24", "logger=none", "callbacks.samples.prompts=0"],
        "sample": ["generation.max_new_tokens=24"],
    }
    said = {}
    for command in WALK:
        _, verb, *typed = shlex.split(command, comments=True)
        assert main([verb, *typed, *less.get(verb, [])]) == 0, capsys.readouterr().err
        said[command] = capsys.readouterr().out
    assert {path.name for path in (tmp_path / "walk/adapter/checkpoints").glob("*.pt")}
    assert (tmp_path / "walk/draft/adapter/base-model.pt").is_file()
    (drafted,) = [text for command, text in said.items() if "draft=" in command]
    assert "times smaller" in drafted
    (guided,) = [text for command, text in said.items() if "schema=" in command]
    assert "schema" in guided
    assert "keeps every rule of the format" in list(said.values())[-1]
