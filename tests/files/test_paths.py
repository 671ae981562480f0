"""Paths in a run's configuration, when the run or its project lies elsewhere now."""

from __future__ import annotations

import shutil
from pathlib import Path

from graftlab.files.paths import relocated


def project(folder: Path) -> Path:
    """A project with a base, data, and a run of both."""
    run = folder / "outputs" / "run"
    for place in (folder / "models" / "base", folder / "data", run):
        place.mkdir(parents=True)
    (folder / "data" / "rows.jsonl").touch()
    return run


def config(folder: Path) -> dict[str, object]:
    return {
        "model": {"path": str(folder / "models" / "base")},
        "data": {"train": [str(folder / "data" / "*.jsonl")], "valid": str(folder / "gone.jsonl")},
        "run_dir": str(folder / "outputs" / "run"),
    }


def test_what_moved_with_the_run_is_meant_where_it_lies_now(tmp_path: Path) -> None:
    there, now = tmp_path / "there", tmp_path / "now"
    project(there)
    shutil.move(there, now)
    assert relocated(config(there), now / "outputs" / "run") == config(now)


def test_a_copied_project_means_its_own_files(tmp_path: Path) -> None:
    there, now = tmp_path / "there", tmp_path / "now"
    project(there)
    shutil.copytree(there, now)
    assert relocated(config(there), now / "outputs" / "run") == config(now)


def test_a_run_copied_alone_still_means_the_files_that_stayed(tmp_path: Path) -> None:
    there, backup = tmp_path / "there", tmp_path / "backup" / "outputs" / "run"
    shutil.copytree(project(there), backup)
    found = relocated(config(there), backup)
    assert found["model"] == config(there)["model"]
    assert found["data"]["train"] == [str(there / "data" / "*.jsonl")]
    assert found["run_dir"] == str(backup)
