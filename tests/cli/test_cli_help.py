"""`--help`, `--cfg job`, `--version` and completion, through both doors."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import yaml

from graftlab import __version__
from graftlab.cli.compose import VERBS
from graftlab.cli.schema import read_schema
from graftlab.commands import commands
from graftlab.files.paths import conf_dir
from graftlab.registry import field_types

if TYPE_CHECKING:
    from conftest import Doors


def test_the_verbs(doors: Doors) -> None:
    for arguments in ([], ["--help"], ["-h"]):
        seen = doors.knock(*arguments)
        assert seen.code == 0
        assert all(f"  {word}" in seen.out for word in [*VERBS, *commands()])
    assert doors.knock("--version").out == f"graftlab {__version__}\n"


@pytest.mark.parametrize("verb", VERBS)
def test_help_shows_choices_and_keys(verb: str, doors: Doors) -> None:
    seen = doors.knock(verb, "--help")
    assert seen.code == 0
    choices = read_schema(verb, [conf_dir()])
    lines = re.sub(r"\n {6,}", " ", seen.out).splitlines()  # long lists go on in the next line
    for group, options in choices.groups.items():
        (line,) = [line for line in lines if line.startswith(f"  {group} ")]
        assert {word.rstrip("*") for word in line.split()[1:]} == set(options)
    keys = [name for name in field_types(VERBS[verb]) if name not in choices.groups]
    assert all(f"  {key}=" in seen.out for key in keys if key != "run_dir")


def test_help_of_a_group(doors: Doors) -> None:
    seen = doors.knock("train", "--help", "lora")
    assert "attn-mlp*" in seen.out
    assert "lora.rank " in seen.out
    assert "callbacks.early_stopping.patience " in doors.knock("train", "--help", "callbacks").out
    assert "optimizer.target " in doors.knock("train", "--help", "optimizer").out
    assert doors.knock("train", "--help", "lara").code == 2


@pytest.mark.parametrize(
    "words",
    [
        ["--help", "lora.rank=3"],
        ["lora.rank", "--help"],
        ["max_steps=3", "model=hf", "--help", "lora"],
        ["max_steps=3", "--help", "lora=dora"],
    ],
)
def test_help_of_a_group_beside_other_words(words: list[str], doors: Doors) -> None:
    seen = doors.knock("train", *words)
    assert seen.code == 0, seen.err
    assert "lora.rank " in seen.out
    assert "model.path " not in seen.out


def test_help_beside_plain_keys(doors: Doors) -> None:
    assert "Choices, as group=option" in doors.knock("train", "max_steps=3", "--help").out


@pytest.mark.parametrize("verb", VERBS)
def test_cfg_job_shows_the_run(verb: str, doors: Doors) -> None:
    seen = doors.knock(verb, "--cfg", "job")
    assert seen.code == 0
    assert set(yaml.safe_load(seen.out)) == set(field_types(VERBS[verb]))
    assert not (doors.folder / "outputs").exists()


def test_cfg_job_with_values_and_references(doors: Doors) -> None:
    seen = doors.knock("train", "--cfg", "job", "--resolve", "experiment=hafs-coder", "lora.rank=7")
    shown = yaml.safe_load(seen.out)
    assert shown["lora"]["rank"] == 7
    assert shown["run_dir"].startswith("outputs/")
    assert doors.knock("train", "--cfg", "job", "seed=abc").code == 2


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("graftlab tr", {"train"}),
        ("graftlab ", {*VERBS, *commands()}),
        ("graftlab to", {"toolkit"}),
        ("graftlab train precision=bf", {"precision=bf16", "precision=bf16-mixed"}),
        ("graftlab train lora.ra", {"lora.rank=", "lora.rank_pattern."}),
        ("graftlab sample generation=", {"generation=creative", "generation=greedy"}),
        ("graftlab inspect acc", {"accumulate="}),
    ],
)
def test_completion_of_the_console_script(
    line: str, expected: set[str], doors: Doors, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMP_LINE", line)
    assert set(doors.knock("-sc", "query=bash").out.split()) == expected


def test_completion_of_the_script(doors: Doors, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMP_LINE", "python train.py optimizer=")
    seen = doors.knock("train", "-sc", "query=bash")
    assert set(seen.out.split()) == {"optimizer=adamw", "optimizer=custom"}
    assert "hydra_bash_completion" in doors.knock("train", "-sc", "install=bash").out


def test_a_folder_of_one_s_own_options(doors: Doors) -> None:
    mine = doors.folder / "my conf" / "lora"
    mine.mkdir(parents=True)
    (mine / "huge.yaml").write_text("rank: 512\n", encoding="utf-8")
    assert doors.train("--config-dir", "my conf", "lora=huge").code == 0
    assert doors.specs[0].lora.rank == 512
    assert doors.train("lora=huge").code == 2


def test_a_reader_that_has_gone_is_no_crash() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "graftlab.cli.main", "train", "--help"]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")
