"""Runs in child processes that are killed or stopped at a chosen event; see training/nursery.py."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

NURSERY = Path(__file__).parent / "training" / "nursery.py"


def nursery(spec_data: dict, commands: list[dict], scratch: Path) -> list[dict]:
    files = [scratch / "spec.json", scratch / "commands.json"]
    for file, content in zip(files, (spec_data, commands), strict=True):
        file.write_text(json.dumps(content))
    # Not the W&B service of this process, which would outlive a child that is killed.
    own = {key: value for key, value in os.environ.items() if not key.startswith("WANDB_SERVICE")}
    environment = {**own, "OMP_NUM_THREADS": "1", "WANDB_MODE": "offline"}
    done = subprocess.run(
        [sys.executable, str(NURSERY), *map(str, files)],
        capture_output=True, text=True, env=environment, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == len(commands), done.stderr[-3000:]
    print(done.stderr[-6000:])  # shown when the test fails
    return answers
