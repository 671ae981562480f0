"""Two processes on one folder: the second is told who is there, and leaves at once."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from chats import chats
from graftlab.cli.main import main
from graftlab.files.locks import BusyError, hold, hold_beside
from graftlab.files.ownership import LOCK
from graftlab.tracking.folder import RunFolder
from graftlab.training.start import run
from graftlab.verbs.report import ReportSpec
from graftlab.verbs.report import run as report
from miniatures import miniature
from run_folders import write_run
from training_spec import small_spec


def test_the_second_on_a_run_folder_is_told_who_is_there(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    folder = RunFolder(tmp_path / "run")
    folder.take()
    before = sorted(folder.path.iterdir())
    with hold(folder.path / LOCK, what="run"):  # as another process would: not known to this one
        assert main(["train", "logger=none", "hydra.run.dir=run"]) == 2
    said = capsys.readouterr().err
    assert f"run is in use by process {os.getpid()} on " in said
    assert len(said.splitlines()) == 1
    assert sorted(folder.path.iterdir()) == before  # no .hydra, no train.log, and no lock left


def test_a_run_is_held_while_it_trains_and_free_behind_it(tmp_path):
    miniature("qwen2", tmp_path / "base")
    for name in ("train", "valid"):
        chats(tmp_path / f"{name}.jsonl", 4)
    spec = replace(small_spec(tmp_path), run_dir=str(tmp_path / "run"), max_steps=1)
    lock = tmp_path / "run" / LOCK
    held = []

    class Look:
        rungs = keeps = ()

        def __getattr__(self, name: str) -> object:
            return lambda *_, **__: held.append(json.loads(lock.read_text())["pid"]) or None

    run(spec, observer=Look())
    assert set(held) == {os.getpid()}
    assert not lock.exists()
    (tmp_path / "run" / "result.json").unlink()
    with hold(lock, what="run"), pytest.raises(BusyError):
        run(replace(spec, resume="auto"))


def test_blocks_of_one_process_hold_a_run_together(tmp_path):
    folder = RunFolder(tmp_path / "run")
    with folder.held():
        with RunFolder(tmp_path / "run").held():
            pass
        with pytest.raises(BusyError), hold(folder.path / LOCK, what="run"):
            pass
    assert not (folder.path / LOCK).exists()


@pytest.mark.parametrize("verb", ["prepare", "export", "sample", "report"])
def test_the_second_on_an_out_is_told_who_is_there(tmp_path, monkeypatch, capsys, verb):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "book.txt").write_text("A sentence of the book that is long enough.\n" * 20)
    words, out = {
        "prepare": (["recipe=systems-theologian", "corpus=book.txt", "out=new/out"], "new/out"),
        "export": (["adapter=base", "target=mlx", "out=new/out"], "new/out"),
        "sample": (["model=tiny", "prompt=Hi", "out=new/out"], "new/out"),
        "report": (["runs", "out=new"], "new/runs.csv"),
    }[verb]
    write_run(tmp_path / "runs" / "0")
    miniature("qwen2", tmp_path / "base")
    with hold_beside(Path(out)):
        assert main([verb, *words]) == 2
        assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [
            f".{Path(out).name}{LOCK}"
        ]
    assert f"{out} is in use by process {os.getpid()}" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_who_waits_is_told_whom_for_and_is_next(tmp_path):
    lock, told, held = tmp_path / ".lock", threading.Event(), []

    def second() -> None:
        with hold(lock, what="run", wait=lambda who: (held.append(who), told.set())):
            held.append("second")
            with pytest.raises(BusyError), hold(lock, what="run"):
                pass

    other = threading.Thread(target=second)
    with hold(lock, what="run"):
        other.start()
        assert told.wait(60)
        assert len(held) == 1
        assert held[0].startswith(f"process {os.getpid()} on ")
    other.join()
    assert held[1:] == ["second"]
    assert not lock.exists()


def test_a_file_system_without_locks_is_said_and_works(tmp_path, monkeypatch):
    def none(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    told: list[str] = []
    with hold(tmp_path / ".lock", what="run", tell=told.append):
        pass
    assert len(told) == 1
    assert "no locks" in told[0]


def test_a_lock_that_its_holder_removes_meanwhile_is_taken_anew(tmp_path, monkeypatch):
    """Between opening and locking, the last holder ends: its file is gone, and its lock is free."""
    lock, real, seen = tmp_path / ".lock", fcntl.flock, []

    def flock(descriptor: int, how: int) -> None:
        if not seen:
            lock.unlink()
        seen.append(descriptor)
        real(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    with hold(lock, what="run"):
        assert len(seen) == 2
        assert lock.exists()
        monkeypatch.setattr(fcntl, "flock", real)
        with pytest.raises(BusyError), hold(lock, what="run"):
            pass


def test_a_report_of_a_run_in_progress_is_made(tmp_path):
    run_folder = write_run(tmp_path / "runs" / "0")
    with hold(run_folder / LOCK, what="run"):
        report(ReportSpec(dirs=[str(tmp_path / "runs")]))
    assert (tmp_path / "runs" / "runs.csv").is_file()
