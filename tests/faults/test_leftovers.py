"""What a killed process leaves is put back or removed by the next one, and never a living one's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from graftlab.files.building import building, recover
from graftlab.files.writing import partial_path
from graftlab.text.cache import drafting
from graftlab.tracking.folder import RunFolder

DIES = """
import os, shutil, signal, sys
from pathlib import Path
target, place = Path(sys.argv[1]), int(sys.argv[2])
seen = 0
def watched(function):
    def call(*args, **kwargs):
        global seen
        seen += 1
        if seen == place:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **kwargs)
    return call
import graftlab.files.building as module
for name in ("replace", "link", "rmdir", "unlink", "fsync", "mkdir", "scandir"):
    setattr(os, name, watched(getattr(os, name)))
shutil.rmtree = watched(shutil.rmtree)
with module.building(target) as folder:
    (folder / "ours").write_text("new")
print(seen)
"""


def dies(target: Path, place: int) -> subprocess.CompletedProcess[str]:
    """Replace `target` in a process that is killed before its `place`-th file operation."""
    call = [sys.executable, "-c", DIES, str(target), str(place)]
    return subprocess.run(call, capture_output=True, text=True)


def earlier(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "ours").write_text("old")
    (folder / "mine").mkdir()
    (folder / "mine" / "thesis.tex").write_text("mine")
    return folder


def test_killed_at_any_operation_the_old_or_the_new_folder_is_there(tmp_path):
    whole = dies(earlier(tmp_path / "whole" / "out"), 0)
    operations = int(whole.stdout)
    assert operations >= 8
    found = set()
    for place in range(1, operations + 1):
        target = earlier(tmp_path / str(place) / "out")
        assert dies(target, place).returncode == -9, place
        recover(target)  # as the next start does
        found.add((target / "ours").read_text())
        assert (target / "mine" / "thesis.tex").read_text() == "mine", place
        with building(target) as folder:
            (folder / "ours").write_text("next")
        assert (target / "ours").read_text() == "next"
        assert (target / "mine" / "thesis.tex").read_text() == "mine"
        assert [path.name for path in target.parent.iterdir()] == ["out"], place
    assert found == {"old", "new"}


def test_a_block_that_fails_leaves_nothing(tmp_path):
    def fail() -> None:
        with building(tmp_path / "deep" / "out") as folder:
            (folder / "part").write_text("x")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_the_dead_are_cleared_up_after_and_the_living_are_not(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    living = partial_path(tmp_path / "out")
    gone = Path(str(partial_path(tmp_path / "out")).replace(f"-{os.getpid()}-", f"-{dead.pid}-"))
    for folder in (living, gone):
        folder.mkdir()
        (folder / "part").write_text("x")
    with building(tmp_path / "out") as folder:
        (folder / "whole").write_text("x")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([living.name, "out"])


def test_a_link_to_a_folder_stays_a_link(tmp_path):
    earlier(tmp_path / "real")
    (tmp_path / "out").symlink_to("real")
    with building(tmp_path / "out") as folder:
        (folder / "ours").write_text("new")
    assert (tmp_path / "out").is_symlink()
    assert (tmp_path / "real" / "ours").read_text() == "new"


def test_a_run_begins_by_putting_back_what_a_killed_one_moved_aside(tmp_path):
    run = RunFolder(tmp_path / "run")
    run.begin({"lr": 1})
    (run.path / ".adapter.before").mkdir()
    (run.path / ".adapter.before" / "adapter_config.json").write_text("{}")
    run.begin({"lr": 1})
    assert (run.adapter / "adapter_config.json").is_file()
    assert not (run.path / ".adapter.before").exists()


def test_the_token_cache_clears_what_the_dead_have_left(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    gone = Path(
        str(partial_path(tmp_path / "tokens-a")).replace(f"-{os.getpid()}-", f"-{dead.pid}-")
    )
    gone.mkdir()
    (gone / "labels.npy").touch()
    with drafting(tmp_path, "a") as first, drafting(tmp_path, "a") as second:
        assert first is not None
        assert second is not None
        assert sorted(tmp_path.iterdir()) == sorted([first.parent, second.parent])
    assert list(tmp_path.iterdir()) == []
