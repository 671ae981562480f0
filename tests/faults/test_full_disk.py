"""A disk that takes no more: one line, and what was saved before goes on to the same result.

The limit on the size of a file stands for the disk: the system refuses the write, as it would.
"""

from __future__ import annotations

import resource
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from commands import command
from graftlab.errors import GraftlabError
from graftlab.files.checksums import beside
from graftlab.files.disk import disk_trouble
from graftlab.tracking.history import Row
from graftlab.training.checkpoint import CheckpointStore
from graftlab.training.observer import Observer
from graftlab.training.spec import TrainSpec
from graftlab.training.start import run
from left_behind import left_behind


@contextmanager
def disk() -> Iterator[Callable[[int], None]]:
    """Yields what sets how many bytes a file may have from then on."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


class Fills(Observer):
    """The disk is full from a moment on."""

    def __init__(self, moment: tuple[str, int], fill: Callable[[], None]) -> None:
        super().__init__()
        self.moment, self.fill = moment, fill

    def after_step(self, row: Row) -> None:
        if self.moment == ("stepped", int(row["step"])):
            self.fill()

    def saved(self, step: int, path: Path) -> None:
        if self.moment == ("saved", step):
            self.fill()


@pytest.mark.parametrize(
    ("moment", "size", "kept"),
    [
        pytest.param(("stepped", 3), 100_000, [1, 2], id="while a checkpoint is written"),
        pytest.param(("saved", 2), 300, [1, 2], id="while a row is written"),
        pytest.param(("saved", 4), 20_000, [1, 2, 3, 4], id="while the run is finished"),
    ],
)
def test_a_full_disk_costs_no_more_than_the_step(
    spec: TrainSpec, tmp_path: Path, moment: tuple[str, int], size: int, kept: list[int]
) -> None:
    run(replace(spec, run_dir=str(tmp_path / "whole")))
    with disk() as limit, pytest.raises(GraftlabError, match="File too large") as told:
        run(spec, observer=Fills(moment, lambda: limit(size)))
    assert "What was saved before is whole" in str(told.value)
    assert "\n" not in str(told.value)
    store = CheckpointStore(Path(spec.run_dir) / "checkpoints")
    assert [saved.step for saved in store.saved()] == kept
    whole = {path for saved in store.saved() for path in (saved.path, beside(saved.path))}
    assert set(store.folder.iterdir()) == whole  # nor half a one, which takes up room
    assert not (Path(spec.run_dir) / "result.json").exists()
    run(replace(spec, resume="auto"))
    assert left_behind(Path(spec.run_dir)) == left_behind(tmp_path / "whole")


def test_nothing_goes_through_the_temporary_folder(
    spec: TrainSpec, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    with pytest.raises(FileNotFoundError):
        tempfile.mkstemp()
    run(spec)
    assert (Path(spec.run_dir) / "result.json").exists()


def test_records_lie_beside_the_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from graftlab.files.building import building
    from graftlab.recipes.folder import writing_result
    from graftlab.recipes.record import Record
    from graftlab.recipes.spool import Spool, spooling_in

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    record = Record("text", {"text": "x" * 50_000}, "file:1")
    with building(tmp_path / "out") as draft, spooling_in(draft), Spool() as spool:
        spool.add(record)
        assert spool[0] == record
        (draft / "train.jsonl").write_text("row\n")
    assert (tmp_path / "out" / "train.jsonl").is_file()

    def overflows() -> None:
        out = tmp_path / "other"
        with writing_result(out), building(out) as draft, spooling_in(draft), Spool() as spool:
            spool.add(record)
            spool[0]

    with disk() as limit:
        limit(20_000)
        with pytest.raises(GraftlabError, match="could not be made: File too large"):
            overflows()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


PROBLEMS = {
    "OSError(errno.ENOSPC, 'No space left on device', 'a/b')": "a/b: No space left on device.",
    "OSError(errno.EROFS, 'Read-only file system', 'a/b')": "a/b: Read-only file system.",
    "PermissionError(errno.EACCES, 'Permission denied', 'a/b')": "a/b: Permission denied.",
    "OSError(errno.ENAMETOOLONG, 'File name too long', 'a/b')": "a/b: File name too long.",
    "sqlite3.OperationalError('database or disk is full')": "database or disk is full.",
    "Exception('I/O error: No space left on device (os error 28)')": "I/O error: No space left",
    "RuntimeError('Could not determine home directory.')": "there is no home folder: set HOME",
}


@pytest.mark.parametrize("problem", PROBLEMS)
def test_what_the_disk_says_is_told_whoever_it_was_said_to(problem: str) -> None:
    import errno

    error: BaseException = eval(problem, {"errno": errno, "sqlite3": sqlite3})
    assert f"{disk_trouble(error)}.".startswith(PROBLEMS[problem])
    wrapped = ValueError("something else")
    wrapped.__cause__ = error
    assert f"{disk_trouble(wrapped)}.".startswith(PROBLEMS[problem])


@pytest.mark.parametrize("error", [ValueError("a mistake"), FileNotFoundError(2, "none", "x")])
def test_mistakes_stay_mistakes(error: Exception) -> None:
    assert disk_trouble(error) is None


def test_it_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    body = "import errno; raise OSError(errno.ENOSPC, 'No space left on device', 'there')"
    with command("plan", "machine=cpu", body=body, folder=tmp_path) as process:
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert errors == b"graftlab plan: there: No space left on device.\n"
