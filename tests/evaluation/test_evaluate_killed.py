"""An evaluation that is killed in the middle goes on from what was answered."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest


@pytest.mark.slow
def test_killed_and_started_again(adapters: list[Path], tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.jsonl"
    rows = [{"prompt": f"Question {n}?", "reference": str(n)} for n in range(40)]
    prompts.write_text("".join(json.dumps(row) + "\n" for row in rows))
    cache, out = tmp_path / "cache", tmp_path / "out"
    words = [sys.executable, "-m", "graftlab", "evaluate", str(adapters[0]), f"prompts={prompts}"]
    words += [f"cache={cache}", f"out={out}", "batch=1", "device=cpu", "precision=fp32"]
    words += ["generation.max_new_tokens=40"]

    def answered() -> list[bytes]:
        return [line for file in cache.glob("*.jsonl") for line in file.read_bytes().splitlines()]

    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 300
    while len(answered()) < 5 and time.monotonic() < end:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    kept = answered()
    assert 5 <= len(kept) < 80
    assert not out.exists()
    file = next(cache.glob("*.jsonl"))
    file.write_bytes(file.read_bytes() + b'{"key": "torn')  # as a kill may leave it
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = answered()
    assert lines[: len(kept)] == kept
    assert len(lines) == 80 + 1, "nobody was asked twice"
    assert json.loads((out / "results.json").read_text())["prompts"] == 40
