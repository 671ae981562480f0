"""docs/add-an-objective.md, followed to the letter in a copy of the repository."""

from __future__ import annotations

import csv
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import forked
from chats import chats

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "add-an-objective.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^`([^`\n]+)`[^\n]*\n\n```(?:python|yaml)\n(.*?)```", re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository after the page's first two steps."""
    copy = tmp_path_factory.mktemp("copy")
    ignored = shutil.ignore_patterns("__pycache__", "assets")
    for folder in ("src", "conf", "tests"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=ignored)
    (copy / "src/graftlab/assets").symlink_to(ROOT / "src/graftlab/assets")
    shutil.copy(ROOT / "pyproject.toml", copy)
    steps = dict(BLOCK.findall(PAGE))
    assert len(steps) == 2
    for path, body in steps.items():
        assert not (copy / path).exists(), f"{path} exists: the page needs another example"
        (copy / path).write_text(body, encoding="utf-8")
    return copy


def call(copy: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A Python of its own that finds the copy first."""
    path = os.pathsep.join([str(copy / "src"), str(copy / "tests")])
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=copy,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )


def test_it_trains_and_logs_its_own_term(copy: Path, tmp_path: Path, qwen2_folder: Path) -> None:
    data = chats(tmp_path / "chats.jsonl", 8)
    words = ["model=hf", f"model.path={qwen2_folder}", "data=jsonl", f"data.train={data}"]
    words += ["objective=dft", "objective.floor=0.1", "max_steps=2", "logger=csv", "precision=fp32"]
    words += ["callbacks.samples.prompts=0", f"hydra.run.dir={tmp_path / 'run'}"]
    both = (
        f"import sys; sys.path.insert(0, {str(copy / 'src')!r})\n"
        "from graftlab.cli.main import main\n"
        "codes = main(sys.argv[1:]), main(['train', 'objective=dft', 'objective.flor=1'])\n"
        "print(codes)"
    )
    done = forked.python(both, "train", *words, folder=copy)
    assert done.stdout.splitlines()[-1] == "(0, 2)", done.stderr
    assert "objective.floor" in done.stderr  # what the typo's key was meant to be
    with (tmp_path / "run" / "train_log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["0", "1", "2"]
    assert all(0 < float(row["loss"]) < float(row["nll"]) for row in rows[1:])


@pytest.mark.slow
def test_the_golden_test_records_and_then_passes(copy: Path) -> None:
    command = ["-m", "pytest", "tests/training/test_update.py", "-k", "golden and dft"]
    first, second = call(copy, *command), call(copy, *command)
    assert "recorded" in first.stdout, first.stdout
    assert (copy / "tests/golden/dft.json").is_file()
    assert second.returncode == 0, second.stdout
    others = call(copy, "-m", "pytest", "tests/cli/test_config_yaml.py")
    assert others.returncode == 0, others.stdout
