"""Runs in child processes that are killed or stopped at a chosen event; see training/nursery.py."""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
from pathlib import Path

NURSERY = Path(__file__).parent / "training" / "nursery.py"

_open: list[subprocess.Popen[str]] = []
"""The one nursery of this process: it serves every test, and pays the imports once."""


def nursery(spec_data: dict, commands: list[dict], scratch: Path) -> list[dict]:
    """Children of one specification, one after the other: how each ended, and its events."""
    process = _open[0] if _open else _opened()
    assert process.stdin is not None
    assert process.stdout is not None
    log = scratch / "nursery.log"
    request = {"spec": spec_data, "commands": commands, "log": str(log)}
    answers = []
    try:
        process.stdin.write(json.dumps(request) + "\n")
        process.stdin.flush()
        for _ in commands:
            line = process.stdout.readline()
            assert line, "the nursery is gone"
            answers.append(json.loads(line))
    except BaseException:  # it may still be at work: the next test gets another one
        _close()
        raise
    finally:
        if log.exists():
            print(log.read_text(errors="replace")[-6000:])  # shown when the test fails
    return answers


def _opened() -> subprocess.Popen[str]:
    # Not the W&B service of this process, which would outlive a child that is killed.
    own = {key: value for key, value in os.environ.items() if not key.startswith("WANDB_SERVICE")}
    process = subprocess.Popen(
        [sys.executable, str(NURSERY)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**own, "OMP_NUM_THREADS": "1", "WANDB_MODE": "offline"},
    )
    _open.append(process)
    atexit.register(_close)
    return process


def _close() -> None:
    while _open:
        process = _open.pop()
        process.kill()
        process.communicate()
