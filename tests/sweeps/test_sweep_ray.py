"""Workers on a Ray cluster of one node, which the launch starts by itself."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from graftlab.errors import ConfigError, GraftlabError
from graftlab.sweeps.launchers.ray import RayLauncher
from sweep_crew import draft
from sweep_runs import run_sweep


def graftlab(arguments: list[str], folder: Path, **more) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own: Ray's is full of sockets, which tests are kept from."""
    command = [sys.executable, "-m", "graftlab.cli.main", "train", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **more}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=280
    )


def test_settings_are_checked() -> None:
    with pytest.raises(ConfigError, match="launcher.cpus_per_job=0"):
        RayLauncher(cpus_per_job=0)


def test_without_ray_the_message_says_what_to_install(tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(GraftlabError, match=r"pip install 'graftlab\[ray\]'"):
        run_sweep(tmp_path, [draft("x")], RayLauncher())


@pytest.mark.slow
def test_a_sweep_on_one_node_is_done_and_found_done(tmp_path) -> None:
    pytest.importorskip("ray")
    line = [
        *("-m", "lr=1e-3,5e-3", "max_steps=3", "data.limit=40", "logger=none"),
        *("precision=fp32", "compile=off", "callbacks.samples.prompts=0", "trainer=cpu"),
        *("launcher=ray", "sweep.name=on-ray"),
    ]
    done = graftlab(line, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 done" in done.stdout
    folder = tmp_path / "multirun" / "on-ray"
    results = sorted(folder.glob("*/result.json"))
    assert len(results) == 2
    assert all(json.loads(file.read_text())["steps"] == 3 for file in results)
    before = [file.stat().st_mtime_ns for file in results]
    again = graftlab(line, tmp_path)
    assert again.returncode == 0, again.stdout + again.stderr
    assert re.search(r"2 done by earlier launches", again.stdout)
    assert [file.stat().st_mtime_ns for file in results] == before
