"""A teacher is found, told apart by what it is, and named where it is not there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from chats import chats
from graftlab.cli.preflight import CommandLine, verify
from graftlab.cli.schema import read_schema
from graftlab.errors import GraftlabError
from graftlab.files.paths import conf_dir
from graftlab.models.fingerprint import fingerprint
from graftlab.registry import dump
from graftlab.tracking.identity import identity
from miniatures import miniature


@pytest.fixture
def line(tmp_path: Path) -> list[str]:
    """A run whose teacher is TEACHER, in the working folder."""
    chats(tmp_path / "chats.jsonl", 3)
    return ["experiment=draft", f"data.train={tmp_path / 'chats.jsonl'}"]


def command() -> CommandLine:
    return CommandLine(read_schema("train", [conf_dir()]), conf_dir())


def test_the_teacher_s_fingerprint_is_part_of_the_run(line: list[str], tmp_path: Path) -> None:
    teacher = miniature("qwen2", tmp_path / "teacher")
    words = [*line, f"objective.teacher={teacher}"]
    spec = verify(command(), words)
    assert spec.objective.key == fingerprint(teacher)
    assert spec.model.of == str(teacher)
    assert spec.lora.full
    assert spec.objective.divergence == "forward"  # the objective's own default is inverse
    before = identity(dump(spec))
    assert identity(dump(verify(command(), words))) == before
    miniature("qwen2", teacher, seed=4)
    assert identity(dump(verify(command(), words))) != before


def test_a_pretrained_student_takes_the_place_of_the_draft(line: list[str], tmp_path: Path) -> None:
    teacher, small = (miniature("qwen2", tmp_path / name) for name in ("teacher", "small"))
    student = ["model=hf", f"model.path={small}"]
    spec = verify(command(), [*line, f"objective.teacher={teacher}", *student])
    assert spec.model.path == str(small)
    assert spec.objective.key == fingerprint(teacher)


def test_a_teacher_that_is_not_there_is_named(line: list[str], tmp_path: Path) -> None:
    with pytest.raises(GraftlabError, match=r"objective\.teacher=.*nowhere"):
        verify(command(), [*line, f"objective.teacher={tmp_path / 'nowhere'}"])
    with pytest.raises(GraftlabError, match=r"objective\.teacher=RUN"):
        verify(command(), line)


def test_an_adapter_without_its_run_is_no_teacher(line: list[str], tmp_path: Path) -> None:
    (tmp_path / "bare").mkdir()
    config = {"base_model_name_or_path": "someone/some-model"}
    (tmp_path / "bare" / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(GraftlabError, match=r"no run\.yaml that says which base"):
        verify(command(), [*line, f"objective.teacher={tmp_path / 'bare'}"])
