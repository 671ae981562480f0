"""Killed (SIGKILL) at a random operation on a file and started again: the result is the same.

Over training, a joint sweep, `prepare` and `export`; which operations is drawn from a seed.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from joint_runs import assert_equal_runs
from left_behind import left_behind
from training_spec import small_root

PROGRAM = Path(__file__).parent / "deathbed.py"
FEW = {"train": 2, "prepare": 1, "export": 1}
MANY = {"train": 70, "joint": 40, "prepare": 50, "export": 40}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_root(tmp_path_factory.mktemp("kills"))


def run_all(root: Path, commands: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """How each of them ended, and how many operations it came to."""
    file = root / "commands.json"
    file.write_text(json.dumps(commands))
    done = subprocess.run(
        [sys.executable, str(PROGRAM), str(root), str(file)],
        capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    print(done.stderr[-6000:])  # shown when the test fails
    assert len(answers) == len(commands)
    return answers


def assert_equal(does: str, ours: Path, theirs: Path) -> None:
    """Bit for bit; what trained jointly and was killed may go on alone, equal within rounding."""
    if does == "train":
        assert left_behind(ours / "run") == left_behind(theirs / "run")
    elif does == "joint":
        runs = sorted(path.parent.name for path in (theirs / "sweep").glob("*/result.json"))
        assert len(runs) == 2
        for run in runs:
            assert_equal_runs(ours / "sweep" / run, theirs / "sweep" / run)
    else:
        assert files(ours / NAMES[does]) == files(theirs / NAMES[does])


NAMES = {"prepare": "prepared", "export": "export"}


def files(folder: Path) -> dict[str, Any]:
    """By name; of an export's record all but the line that names its place."""
    found = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    assert found
    held: dict[str, Any] = {str(path.relative_to(folder)): path.read_bytes() for path in found}
    if "parity.json" in held:
        record, sums = (json.loads(held[name]) for name in ("parity.json", "checksums.json"))
        assert str(folder) in record.pop("check")
        assert len(sums.pop("parity.json")) == 32
        held |= {"parity.json": record, "checksums.json": sums}
    return held


@pytest.mark.parametrize(
    "kills",
    [
        pytest.param(FEW, marks=pytest.mark.timeout(900)),
        pytest.param(MANY, marks=[pytest.mark.slow, pytest.mark.timeout(7200)]),
    ],
    ids=["a few", "two hundred"],
)
def test_killed_at_random_and_started_again_is_never_killed(
    root: Path, tmp_path: Path, kills: dict[str, int]
) -> None:
    whole = {does: root / f"whole-{does}" for does in kills}
    commands: list[dict[str, Any]]
    commands = [{"does": does, "folder": str(folder)} for does, folder in whole.items()]
    for folder in whole.values():
        shutil.rmtree(folder, ignore_errors=True)
    answers = run_all(root, commands)
    assert [answer["code"] for answer in answers] == [0] * len(whole)
    seen = {does: answer["seen"] for does, answer in zip(whole, answers, strict=True)}
    if "joint" in seen:
        seen["joint"] = int(0.9 * seen["joint"])  # signs of life are among them, as time passes
    assert min(seen.values()) > 8, seen

    draw = random.Random(11)
    places = [(does, draw.randint(1, seen[does])) for does, n in kills.items() for _ in range(n)]
    commands.clear()
    for number, (does, place) in enumerate(places):
        folder = str(tmp_path / f"{number}-{does}-{place}")
        commands += [{"does": does, "folder": folder, "kill_at": place}]
        commands += [{"does": does, "folder": folder}]
    answers = run_all(root, commands)
    died: Counter[str] = Counter()
    for (does, place), killed, again, command in zip(
        places, answers[::2], answers[1::2], commands[::2], strict=True
    ):
        assert killed == {"code": -signal.SIGKILL, "seen": place}, (does, place)
        assert again["code"] == 0, (does, place)
        assert_equal(does, Path(command["folder"]), whole[does])
        died[does] += 1
        shutil.rmtree(command["folder"])
    assert died == kills
