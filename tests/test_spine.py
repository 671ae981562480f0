"""The way from the command to the first loss, traced: it is short, and wanders little."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from chats import chats
from test_layers import ORDER, ROOT

GROUND = ORDER[: ORDER.index("text")]
"""What every room stands on and asks at any time: messages, files, the registry."""
TRACE = """
import json, os, sys
import graftlab
from graftlab.cli.main import main

root = os.path.dirname(graftlab.__file__) + os.sep
calls = {}

def note(frame, event, argument):
    code = frame.f_code
    if event != "call" or not code.co_filename.startswith(root) or code.co_name[0] == "<":
        return
    importing = frame.f_back is not None and frame.f_back.f_code.co_name == "<module>"
    if code.co_flags & 2 and not importing:  # a function, not a class that is being made
        calls.setdefault((code.co_filename.removeprefix(root), code.co_qualname))
    if code.co_name == "terms":
        sys.setprofile(None)
        stack = []
        while frame is not None:
            stack.insert(0, frame.f_code.co_filename)
            frame = frame.f_back
        stack = [file.removeprefix(root) for file in stack if file.startswith(root)]
        print(json.dumps({"calls": list(calls), "stack": list(dict.fromkeys(stack))}))
        sys.stdout.flush()
        os._exit(0)

sys.setprofile(note)
main(sys.argv[1:])
"""


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Functions in the order of their first calls, and the files on the stack at the first loss."""
    folder = tmp_path_factory.mktemp("traced")
    words = ["data=jsonl", f"data.train={chats(folder / 'chats.jsonl', 8)}", "logger=none"]
    words += ["max_steps=1", "callbacks.progress=false", "precision=fp32"]
    done = subprocess.run(
        [sys.executable, "-c", TRACE, "train", *words],
        cwd=folder,
        env={**os.environ, "GRAFTLAB_CACHE": str(folder / "cache")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, list[str]] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_the_files_that_lead_to_the_loss_are_those_of_the_walk(
    traced: dict[str, list[str]],
) -> None:
    page = (ROOT / "docs" / "walk.md").read_text(encoding="utf-8")
    told = re.search(r"```text\n(train\.py.*?)```", page, re.DOTALL)
    assert told is not None
    listed = re.findall(r"^(\S+\.py)", told[1], re.MULTILINE)
    assert listed == ["train.py", *traced["stack"]]
    assert len(listed) <= 9


def test_the_way_wanders_little(traced: dict[str, list[str]]) -> None:
    """How often one comes to another room, reading each function where it is first called."""
    rooms = [Path(file).parts[0].removesuffix(".py") for file, _ in traced["calls"]]
    above = [room for room in rooms if room not in GROUND]
    assert len(above) > 200
    assert sum(a != b for a, b in pairwise(above)) < 124
