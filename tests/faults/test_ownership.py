"""Nothing of the user's is deleted or overwritten, whatever a folder or a file is called."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import pytest
import yaml

from graftlab.apple.toolkit.places import hand_over
from graftlab.cli.main import main
from graftlab.errors import ConfigError
from graftlab.exports.folder import require_free
from graftlab.files.building import building
from graftlab.files.ownership import kind_of
from graftlab.files.writing import partial_path
from graftlab.recipes.folder import OURS, check_out
from graftlab.tracking.folder import RunFolder, adopt
from graftlab.verbs.report import ReportSpec
from graftlab.verbs.report import run as report
from graftlab.verbs.sample import check_out as check_replies
from run_folders import config_with, write_run


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """An empty current folder."""
    place = tmp_path / "here"
    place.mkdir()
    monkeypatch.chdir(place)
    return place


def everything(folder: Path) -> dict[str, bytes | None]:
    """Every path below a folder, and what the files hold."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def thesis(folder: Path) -> Path:
    """A folder that is somebody's work, with names that are ours, too."""
    (folder / "adapter").mkdir(parents=True)
    (folder / "adapter" / "thesis.tex").write_text("\\section{Ficino}")
    (folder / "samples.md").write_text("mine")
    return folder


def a_copied_description(folder: Path) -> Path:
    """Holds a `run.yaml` of ours, as an adapter's folder does, and is no run."""
    folder.mkdir()
    (folder / "run.yaml").write_text(yaml.safe_dump(config_with({})))
    (folder / "notes.md").write_text("mine")
    return folder


@pytest.mark.parametrize("make", [thesis, a_copied_description])
@pytest.mark.parametrize("sweep", [False, True], ids=["run", "sweep"])
def test_a_folder_of_others_is_refused_before_anything_is_written(here, capsys, make, sweep):
    make(here / "mine")
    before = everything(here)
    words = ["-m", "lr=1e-3,1e-4", "hydra.sweep.dir=mine"] if sweep else ["hydra.run.dir=mine"]
    assert main(["train", "data=demo", "logger=none", *words]) == 2
    said = capsys.readouterr().err
    assert "=mine holds files that are not of a " in said
    assert "Traceback" not in said
    assert everything(here) == before


@pytest.mark.parametrize(
    ("folder", "reason"),
    [
        ("/proc/nope/run", "cannot be written: No such file"),
        ("file", "is a file"),
        ("file/run", "cannot be written: Not a directory"),
        (".", "no folder of its own"),
        ("/", "no folder of its own"),
        ("~", "no folder of its own"),
    ],
)
def test_a_run_folder_that_cannot_be_is_one_line(here, capsys, monkeypatch, folder, reason):
    monkeypatch.setenv("HOME", str(here.parent))
    (here / "file").write_text("mine")
    before = everything(here.parent)
    assert main(["train", "logger=none", f"hydra.run.dir={folder}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert reason in line
    assert everything(here.parent) == before


def test_an_empty_home_is_no_run_folder(here, monkeypatch):
    monkeypatch.setenv("HOME", str(here / "home"))
    (here / "home").mkdir()
    with pytest.raises(ConfigError, match="no folder of its own"):
        RunFolder(here / "home").take()


def test_a_disk_that_refuses_the_run_folder_is_one_line(here, capsys, monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", "outputs")

    monkeypatch.setattr(Path, "mkdir", refuse)
    assert main(["train", "logger=none"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "cannot be written: Permission denied" in line


def test_an_empty_folder_becomes_ours_and_stays_so(tmp_path):
    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    (run.path / ".gitkeep").touch()
    partial_path(run.path / ".graftlab").touch()  # of a start that was killed as it marked it
    run.begin({"lr": 1.0})
    assert kind_of(run.path) == "run"
    run.begin({"lr": 1.0})
    with building(run.adapter) as folder:
        (folder / "run.yaml").write_text("lr: 1.0")
    with pytest.raises(ConfigError, match="not of a run of ours"):
        RunFolder(run.adapter).take()


def test_a_copy_without_its_mark_is_taken_where_it_is_named_as_a_run(tmp_path):
    run = write_run(tmp_path / "run")
    with pytest.raises(ConfigError):
        RunFolder(run).take()
    adopt(run)
    RunFolder(run).take()
    other = thesis(tmp_path / "thesis")
    adopt(other)
    assert kind_of(other) is None


def test_what_people_put_into_an_adapter_folder_stays_when_it_is_replaced(tmp_path):
    run = RunFolder(tmp_path / "run")
    for text in ("first", "second"):
        with building(run.adapter) as folder:
            (folder / "adapter_config.json").write_text(text)
        (run.adapter / "thesis.tex").write_text("mine")
        (run.adapter / "merged").mkdir(exist_ok=True)
        (run.adapter / "merged" / "model.safetensors").write_text("large")
        if not (run.adapter / "latest").is_symlink():
            (run.adapter / "latest").symlink_to("merged")
    assert (run.adapter / "adapter_config.json").read_text() == "second"
    assert (run.adapter / "thesis.tex").read_text() == "mine"
    assert (run.adapter / "latest" / "model.safetensors").read_text() == "large"
    assert sorted(path.name for path in run.path.iterdir()) == ["adapter"]


def test_a_data_set_replaces_its_own_files_and_keeps_others(tmp_path, here):
    out = tmp_path / "data"
    out.mkdir()
    (out / "manifest.json").write_text('{"name": "my web app"}')
    with pytest.raises(ConfigError, match="other files than a prepared data set"):
        check_out(str(out))
    ours = {"key": "k", "seed": 0, "result": {}}
    (out / "manifest.json").write_text(json.dumps(ours))
    (out / "test.jsonl").write_text("of the earlier result")
    (out / "notes.md").write_text("mine")
    assert check_out(str(out)) == out
    with building(out, replaces=OURS) as folder:
        (folder / "train.jsonl").write_text("{}")
    assert sorted(path.name for path in out.iterdir()) == ["notes.md", "train.jsonl"]
    with pytest.raises(ConfigError, match="no folder of its own"):
        check_out(".")


def test_an_export_replaces_an_export_and_nothing_else(tmp_path):
    out = tmp_path / "out"
    with building(out, keeps=False) as folder:
        (folder / "adapter_config.json").write_text("first")
    require_free(thesis(tmp_path / "free") / "new", overwrite=True)
    with pytest.raises(ConfigError, match="is no export"):
        require_free(tmp_path / "free", overwrite=True)
    with building(out, keeps=False) as folder:
        (folder / "adapter_config.json").write_text("second")
    (out / "thesis.tex").write_text("mine")
    refused = pytest.raises(ConfigError, match=r"does not have: thesis\.tex")
    with refused, building(out, keeps=False) as folder:
        (folder / "adapter_config.json").write_text("third")
    assert everything(out) == {"adapter_config.json": b"second", "thesis.tex": b"mine"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["free", "out"]


def test_replies_replace_replies_alone(tmp_path):
    row = {"prompt": [], "base": "a", "adapter": None, "expected": None, "scale": None}
    ours, mine, empty = (tmp_path / name for name in ("ours.jsonl", "mine.jsonl", "empty"))
    ours.write_text(json.dumps(row) + "\n")
    mine.write_text('{"messages": []}\n')
    empty.touch()
    for free in (ours, empty, tmp_path / "new.jsonl"):
        check_replies(str(free))
    for taken in (mine, tmp_path):
        with pytest.raises(ConfigError, match="out="):
            check_replies(str(taken))
    assert main(["sample", "model=tiny", "prompt=Hi", f"out={mine}"]) == 2
    assert mine.read_text() == '{"messages": []}\n'


def test_a_report_replaces_reports_alone(tmp_path):
    runs = tmp_path / "runs"
    write_run(runs / "0")
    report(ReportSpec(dirs=[str(runs)]))
    report(ReportSpec(dirs=[str(runs)]))  # over its own files
    with (runs / "runs.csv").open() as file:
        assert len(list(csv.reader(file))) == 2
    for name in ("runs.csv", "report.html"):
        own = (runs / name).read_bytes()
        (runs / name).write_text("run,my notes\n")
        with pytest.raises(ConfigError, match=f"holds {name}, which no report has written"):
            report(ReportSpec(dirs=[str(runs)]))
        assert (runs / name).read_text() == "run,my notes\n"
        (runs / name).write_bytes(own)


@pytest.mark.parametrize("content", [b"\xff\xfe not text", b"lr: 1", None], ids=repr)
def test_an_experiment_is_written_over_nothing_of_others(tmp_path, capsys, content):
    for seed, score in enumerate((1.0, 1.1)):
        write_run(tmp_path / "runs" / str(seed), {"seed": seed}, score=score)
    target = tmp_path / "best.yaml"
    target.mkdir() if content is None else target.write_bytes(content)
    words = [str(tmp_path / "runs"), f"out={tmp_path / 'out'}", "best=true", f"write={target}"]
    assert main(["report", *words]) == 2
    assert "was not written by this command" in capsys.readouterr().err
    assert content is None or target.read_bytes() == content


def test_a_checkpoint_of_the_toolkit_is_not_replaced_by_ours(tmp_path, capsys):
    run = tmp_path / "adapter"
    (run / "checkpoints").mkdir(parents=True)
    for name in ("adapter-epoch1.pt", "adapter-final.pt"):
        (run / "checkpoints" / name).write_text("ours")
    (tmp_path / "adapter-final.pt").write_text("trained by the toolkit")
    assert [path.name for path in hand_over(tmp_path, run)] == ["adapter-epoch1.pt"]
    assert (tmp_path / "adapter-final.pt").read_text() == "trained by the toolkit"
    assert "is of another training and stays" in capsys.readouterr().out
    later = run / "checkpoints" / "adapter-epoch1.pt"
    later.unlink()
    later.write_text("ours, trained on")
    os.utime(later, ns=(1, 1))
    assert [path.name for path in hand_over(tmp_path, run)] == ["adapter-epoch1.pt"]
    assert (tmp_path / "adapter-epoch1.pt").read_text() == "ours, trained on"


@pytest.fixture
def homeless(monkeypatch):
    """A user id that no account has, and no $HOME, as in many containers."""
    import pwd

    def nobody(*_: object) -> None:
        raise KeyError("getpwuid(): uid not found: 12345")

    monkeypatch.setattr(pwd, "getpwuid", nobody)
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("GRAFTLAB_CACHE", raising=False)


def test_a_user_without_a_home_is_told_in_one_line(here, homeless, capsys):
    from graftlab.caches import default_cache

    with pytest.raises(ConfigError, match="let GRAFTLAB_CACHE name a folder"):
        default_cache()
    assert main(["train", "data=jsonl", "data.train=~/chats.jsonl", "logger=none"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "no home folder" in line
    assert list(here.iterdir()) == []
    RunFolder(here / "run").take()  # which needs none
