"""Whole or not at all; leftovers go when their writer is gone; a lock says who holds it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from graftlab.files.locks import BusyError, hold, try_lock
from graftlab.files.writing import (
    atomic_file,
    clear_leftovers,
    is_alive,
    partial_path,
    write_atomic,
)


def dead_process() -> int:
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    return done.pid


def test_a_failed_write_leaves_what_was_there(tmp_path, monkeypatch):
    file = tmp_path / "result.json"
    write_atomic(file, "old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomic(file, "new")
    assert file.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]


def test_a_file_appears_when_its_block_has_ended_well(tmp_path):
    file = tmp_path / "weights"
    with atomic_file(file) as draft:
        draft.write_bytes(b"first")
        assert not file.exists()
        assert draft.parent == tmp_path
    assert file.read_bytes() == b"first"

    def fails() -> None:
        with atomic_file(file) as draft:
            draft.write_bytes(b"half of the sec")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fails()
    assert file.read_bytes() == b"first"
    assert [path.name for path in tmp_path.iterdir()] == ["weights"]


def test_a_lock_is_tried_by_one_at_a_time(tmp_path):
    lock = tmp_path / "0001.lock"
    first = try_lock(lock)
    assert first is not None
    assert try_lock(lock) is None
    os.close(first)
    again = try_lock(lock)
    assert again is not None
    os.close(again)
    assert lock.exists()


def test_leftovers_of_the_dead_go_and_of_the_living_stay(tmp_path):
    mine = partial_path(tmp_path / "adapter")
    mine.mkdir()
    gone = mine.with_name(mine.name.replace(f"-{os.getpid()}-", f"-{dead_process()}-"))
    gone.mkdir()
    (gone / "part").write_text("x")
    elsewhere = tmp_path / ".adapter.other-host-1-abcdef.partial"
    elsewhere.mkdir()
    foreign = tmp_path / ".mine.partial"
    foreign.write_text("not ours")
    assert clear_leftovers(tmp_path) == [gone]
    assert mine.exists()
    assert elsewhere.exists()
    assert foreign.exists()
    assert is_alive(os.getpid())


def test_partial_names_are_unique_and_short_enough(tmp_path):
    names = {partial_path(tmp_path / ("x" * 255)).name for _ in range(50)}
    assert len(names) == 50
    assert max(map(len, names)) < 256


def test_a_held_lock_names_its_holder_and_frees_itself(tmp_path):
    lock = tmp_path / ".lock"
    with hold(lock, what="RUN"):
        program = (
            "import sys; from pathlib import Path; from graftlab.files.locks import hold\n"
            "try:\n"
            "    with hold(Path(sys.argv[1]), what='RUN'): print('got it')\n"
            "except Exception as error: print(error)"
        )
        call = [sys.executable, "-c", program, str(lock)]
        busy = subprocess.run(call, capture_output=True, text=True).stdout
        assert f"RUN is in use by process {os.getpid()} on " in busy
        with pytest.raises(BusyError), hold(lock, what="RUN"):
            pass
    assert "got it" in subprocess.run(call, capture_output=True, text=True).stdout
