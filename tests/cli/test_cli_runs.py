"""Run folders, sweeps and resuming, with tasks that only note what they were given."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from graftlab.choices import dump
from graftlab.errors import ModelError

if TYPE_CHECKING:
    from conftest import Doors


def pretend(spec: object, folder: Path, *, finished: bool = False) -> None:
    """Leave in `folder` what a run of `spec` would."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.yaml").write_text(yaml.safe_dump(dump(spec)), encoding="utf-8")
    if finished:
        (folder / "result.json").write_text("{}", encoding="utf-8")


def test_every_run_has_a_folder_of_its_own(doors: Doors) -> None:
    for _ in range(2):
        assert doors.train().code == 0
    first, second = (Path(spec.run_dir) for spec in doors.specs)
    assert first != second
    assert first.parent.parent == doors.folder / "outputs"
    assert (first / ".hydra" / "config.yaml").is_file()


def test_sample_and_inspect_leave_nothing_behind(doors: Doors) -> None:
    before = sorted(doors.folder.rglob("*"))
    assert doors.knock("sample", "model=tiny", "prompt=Hi").code == 0
    data = [f"model.path={doors.model}", "data=jsonl", "data.train=chats.jsonl"]
    assert doors.knock("inspect", "model=hf", *data).code == 0
    assert sorted(doors.folder.rglob("*")) == before
    assert len(doors.specs) == 2


def test_a_sweep_is_one_folder_and_one_group(doors: Doors) -> None:
    assert doors.train("-m", "lr=1e-4,1e-3", "lora.rank=4,16", "logger=wandb").code == 0
    folders = [Path(spec.run_dir) for spec in doors.specs]
    assert [folder.name for folder in folders] == ["0", "1", "2", "3"]
    (sweep,) = {folder.parent for folder in folders}
    assert sweep.parent == doors.folder / "multirun"
    assert {spec.logger.wandb.group for spec in doors.specs} == {sweep.name}
    assert {(spec.lr, spec.lora.rank) for spec in doors.specs} == {
        (1e-4, 4),
        (1e-4, 16),
        (1e-3, 4),
        (1e-3, 16),
    }


def test_a_failed_job_is_named_and_the_others_go_on(doors: Doors) -> None:
    doors.fail = {"seed=2": ModelError("Too large."), "seed=3": ZeroDivisionError("ours")}
    seen = doors.train("-m", "seed=1,2,3")
    assert seen.code == 1
    assert len(doors.specs) == 3
    assert "job 1 (seed=2) failed: Too large." in seen.err
    assert "job 2 (seed=3) failed: ZeroDivisionError: ours" in seen.err
    assert "2 of 3 jobs failed:" in seen.err


def test_resume_auto_goes_on_in_the_folder_of_the_same_run(doors: Doors) -> None:
    assert doors.train("resume=auto").code == 0
    other = doors.folder / "outputs" / "killed"
    pretend(doors.specs[0], other)
    assert doors.train("resume=auto").code == 0
    assert doors.train("resume=auto", "lr=0.5").code == 0
    assert doors.train("resume=auto", "hydra.run.dir=elsewhere").code == 0
    folders = [Path(spec.run_dir) for spec in doors.specs]
    assert folders[1] == other
    assert folders[2] not in folders[:2]
    assert folders[3] == doors.folder / "elsewhere"


def test_resume_of_a_folder(doors: Doors) -> None:
    folder = doors.folder / "outputs" / "a run, killed"
    folder.mkdir(parents=True)
    assert doors.train(f"resume={folder}").code == 0
    assert doors.specs[0].run_dir == str(folder)
    seen = doors.train("resume=outputs/nowhere")
    assert seen.code == 2
    assert "there is no such folder" in seen.err
    assert doors.train("-m", f"resume={folder}", "lr=1,2").code == 2


def test_a_resumed_sweep_goes_on_job_by_job(doors: Doors) -> None:
    words = ("-m", "seed=1,2", "resume=auto", "logger=none")
    assert doors.train(*words).code == 0
    before = {spec.seed: Path(spec.run_dir) for spec in doors.specs}
    for spec in doors.specs:
        pretend(spec, before[spec.seed], finished=spec.seed == 1)
    doors.specs.clear()
    assert doors.train(*words).code == 0
    assert {spec.seed: Path(spec.run_dir) for spec in doors.specs} == before
    assert len(list((doors.folder / "multirun").iterdir())) == 1
