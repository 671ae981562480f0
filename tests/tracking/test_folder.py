"""The run folder: atomic writes, identity, and finding the run to go on with."""

from __future__ import annotations

import json
import os

import pytest

from graftlab.files.building import building
from graftlab.files.writing import write_atomic
from graftlab.tracking.folder import RunFolder, find_run
from graftlab.tracking.identity import identity

CONFIG = {"lr": 1e-4, "model": {"choice": "tiny"}, "name": "a", "run_dir": "x", "max_minutes": 3}


def test_identity_is_what_decides_the_result():
    assert identity(CONFIG) == identity({**CONFIG, "name": "b", "run_dir": "y", "resume": "auto"})
    assert identity(CONFIG) != identity({**CONFIG, "lr": 2e-4})


def test_identity_survives_the_way_through_yaml(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.begin({**CONFIG, "tiny": 1e-5, "nothing": None, "many": [1, "a"]})
    wanted = identity({**CONFIG, "tiny": 1e-5, "nothing": None, "many": [1, "a"]})
    found = find_run(tmp_path, wanted)
    assert found is not None
    assert (found.path, found.finished) == (folder.path, False)


def test_the_newest_unfinished_run_is_found_before_a_finished_one(tmp_path):
    for number, finished in enumerate([False, False, True]):
        folder = RunFolder(tmp_path / f"day/run{number}")
        folder.begin(CONFIG)
        os.utime(folder.path / "run.yaml", (number, number))
        if finished:
            write_atomic(folder.path / "result.json", "{}")
    other = RunFolder(tmp_path / "other")
    other.begin({**CONFIG, "lr": 7.0})
    found = find_run(tmp_path, identity(CONFIG))
    assert (found.path.name, found.finished) == ("run1", False)
    write_atomic(tmp_path / "day/run0/result.json", "{}")
    write_atomic(tmp_path / "day/run1/result.json", "{}")
    found = find_run(tmp_path, identity(CONFIG))
    assert (found.path.name, found.finished) == ("run2", True)
    assert find_run(tmp_path, "0" * 16) is None


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    folder = RunFolder(tmp_path)
    with building(folder.adapter) as made:
        (made / "a").write_text("one")
        assert not folder.adapter.exists()
    assert (folder.adapter / "a").read_text() == "one"

    def broken():
        with building(folder.adapter) as made:
            (made / "b").write_text("two")
            raise KeyError

    with pytest.raises(KeyError):
        broken()
    assert [p.name for p in folder.adapter.iterdir()] == ["a"]


def test_json_is_written_atomically(tmp_path):
    path = tmp_path / "x.json"
    write_atomic(path, json.dumps(1))
    write_atomic(path, json.dumps(2))
    assert json.loads(path.read_text()) == 2
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]
