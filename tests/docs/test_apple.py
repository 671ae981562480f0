"""The commands of docs/apple.md: each composes, and the walk is walked."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from composing import composed
from graftlab.door.toolkit.answer import translated
from graftlab.door.toolkit.read import read

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
    assert sum(line.startswith("graftlab toolkit") for line in COMMANDS) == 4


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
