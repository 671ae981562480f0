"""Going on with a run: out of minutes, as another run, from another folder, on another day."""

from __future__ import annotations

import datetime
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from graftlab.adapters.artifact import base_of, find_artifact
from graftlab.data.jsonl import JsonlData
from graftlab.errors import ConfigError, GraftlabError, Interrupted, ResumeError
from graftlab.models.hf import HFModel
from graftlab.registry import dump
from graftlab.sweeps.jobs import NewJob
from graftlab.sweeps.ledger import Ledger
from graftlab.tracking.folder import RunFolder, find_run, time_limit
from graftlab.tracking.identity import identity
from graftlab.training.callbacks.watchers import Stopper
from graftlab.training.checkpoint import Checkpointing
from graftlab.training.observer import Observer
from graftlab.training.start import run
from graftlab.training.watch import Callbacks, Samples, Validation
from graftlab.types import Message
from left_behind import left_behind

ASKS = (
    "{{ strftime_now('%d %B %Y') }}{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


class Stop(Observer):
    """Stops a run, saved, as a signal would, behind a step."""

    def __init__(self, step: int) -> None:
        self.keeps = (step,)

    def saved(self, step: int, path: Path) -> None:
        if step in self.keeps:
            raise Interrupted("stopped", 143)


@pytest.fixture
def busy(spec):
    """Ten steps; validated after every third, logged after every fourth, sampled every epoch."""
    callbacks = Callbacks(
        validation=Validation(every_steps=3, every_epochs=None),
        samples=Samples(prompts=1, every_epochs=1),
    )
    trainer = replace(spec.trainer, log_every=4)
    saving = Checkpointing(every_epochs=1)
    return replace(spec, callbacks=callbacks, trainer=trainer, checkpoint=saving)


@pytest.mark.parametrize("step", [3, 6, 7])
def test_a_run_out_of_minutes_goes_on_as_if_it_had_not_ended(
    busy, tmp_path, monkeypatch, capsys, step
):
    whole = run(replace(busy, run_dir=str(tmp_path / "whole")))

    def is_late(stopper: Stopper) -> bool:
        return stopper.max_minutes == 5 and stopper.recorder.step == step

    monkeypatch.setattr(Stopper, "_is_late", is_late)
    folder = tmp_path / "run"
    limited = replace(busy, run_dir=str(folder), max_minutes=5.0, resume="auto")
    first = run(limited)
    assert (first.steps, first.stopped) == (step, "max_minutes=5 reached")
    assert time_limit(folder) == 5
    assert (folder / "adapter" / "adapter_model.safetensors").is_file()
    found = find_run(tmp_path, identity(dump(limited)))
    assert found is not None
    assert (found.finished, found.path) == (False, folder)  # before the finished one

    capsys.readouterr()
    assert run(limited).steps == step  # no more time was given
    assert "Ended by max_minutes=5" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="holds a finished run"):
        run(replace(limited, max_minutes=None, resume=None))

    again = run(replace(limited, max_minutes=None))
    assert (again.steps, again.stopped, again.score) == (whole.steps, None, whole.score)
    assert left_behind(folder) == left_behind(tmp_path / "whole")
    assert time_limit(folder) is None


def test_a_start_that_is_refused_leaves_a_run_out_of_minutes_as_it_was(spec, tmp_path, monkeypatch):
    monkeypatch.setattr(Stopper, "_is_late", lambda stopper: stopper.max_minutes == 5)
    folder = tmp_path / "run"
    limited = replace(spec, run_dir=str(folder), max_minutes=5.0, resume="auto", date="2026-01-31")
    run(limited)
    result = (folder / "result.json").read_bytes()
    more = replace(limited, max_minutes=None)
    with pytest.raises(ResumeError, match="began with date=2026-01-31"):
        run(replace(more, date="2026-02-01"))
    assert (folder / "result.json").read_bytes() == result

    def no_memory(*args, **options):
        raise GraftlabError("no room for the base")

    with monkeypatch.context() as broken:
        broken.setattr("graftlab.training.run.open_adapter", no_memory)
        with pytest.raises(GraftlabError, match="no room"):
            run(more)
    assert (folder / "result.json").read_bytes() == result
    assert run(more).stopped is None


def test_a_job_of_a_sweep_that_was_out_of_minutes_waits_again_for_more(tmp_path):
    ledger = Ledger(tmp_path)
    ledger.create()

    def draft(minutes: float | None) -> NewJob:
        spec = {"max_minutes": minutes, "lr": 1.0}
        return NewJob(identity="a", label="a", swept={}, spec=spec)

    (job,) = ledger.add([draft(5.0)], launch="first")
    ledger.end(job.number, "done", launch="first", score=1.0)
    RunFolder(tmp_path / job.folder).take()
    (tmp_path / job.folder / "result.json").write_text('{"out_of_minutes": 5.0}')
    assert [job.state for job in ledger.add([draft(5.0)], launch="again")] == ["done"]
    assert [job.state for job in ledger.add([draft(2.0)], launch="less")] == ["done"]
    assert [job.state for job in ledger.add([draft(9.0)], launch="more")] == ["waiting"]
    assert ledger.spec(job.number)["max_minutes"] == 9
    (tmp_path / job.folder / "result.json").write_text('{"out_of_minutes": null}')
    ledger.end(job.number, "done", launch="more", score=1.0)
    assert [job.state for job in ledger.add([draft(None)], launch="rest")] == ["done"]


def test_another_configuration_is_told_by_its_keys_before_anything_is_read(
    busy, tmp_path, monkeypatch
):
    folder = tmp_path / "run"
    begun = replace(busy, run_dir=str(folder), resume="auto")
    with pytest.raises(Interrupted):
        run(begun, observer=Stop(2))
    monkeypatch.setattr(JsonlData, "load", None)
    other = replace(begun, max_steps=500, lora=replace(begun.lora, rank=4))
    with pytest.raises(ResumeError) as refused:
        run(other)
    told = str(refused.value)
    assert "\n  max_steps: null -> 500" in told
    assert "\n  lora.rank: 16 -> 4" in told
    assert len([line for line in told.splitlines() if " -> " in line and line[0] == " "]) == 2
    start = told.partition("lora.from=")[2].split()[0]
    assert (
        find_artifact(start).require_adapter().base_fingerprint() is not None
    )  # the way on is one


def test_paths_are_found_again_from_elsewhere(spec, root, tmp_path, monkeypatch):
    project = tmp_path / "project"
    shutil.copytree(root, project / "files")
    monkeypatch.chdir(project)
    typed = replace(
        spec,
        model=HFModel(path="files/base"),
        data=JsonlData(train="files/train.jsonl", valid=["files/val*.jsonl"]),
        run_dir=str(project / "outputs" / "run"),
        resume="auto",
    )
    with pytest.raises(Interrupted):
        run(typed, observer=Stop(2))
    folder = RunFolder(project / "outputs" / "run")
    config = folder.config()
    assert config["model"]["path"] == str(project / "files" / "base")
    assert config["data"]["valid"] == [str(project / "files" / "val*.jsonl")]

    monkeypatch.chdir(tmp_path)  # the same run, typed from elsewhere
    there = replace(
        typed,
        model=HFModel(path="project/files/base"),
        data=JsonlData(train="project/files/train.jsonl", valid=["project/files/val*.jsonl"]),
    )
    found = find_run(project, identity(dump(there)))
    assert found is not None
    assert found.path == folder.path
    run(there)
    adapter = find_artifact(str(folder.path)).require_adapter()
    assert adapter.run()["model"]["path"] == str(project / "files" / "base")
    monkeypatch.chdir("/")
    assert base_of(adapter, advice="").folder() == project / "files" / "base"


def test_a_project_that_was_moved_knows_its_runs(spec, root, tmp_path, monkeypatch):
    project, moved = tmp_path / "project", tmp_path / "archive" / "mine"
    shutil.copytree(root, project / "files")
    monkeypatch.chdir(project)
    typed = replace(
        spec,
        model=HFModel(path="files/base"),
        data=JsonlData(train="files/train.jsonl", valid="files/valid.jsonl"),
        run_dir=str(project / "outputs" / "run"),
        resume="auto",
    )
    own = identity(dump(typed))
    with pytest.raises(Interrupted):
        run(typed, observer=Stop(2))
    monkeypatch.chdir("/")
    moved.parent.mkdir()
    project.rename(moved)
    monkeypatch.chdir(moved)
    assert identity(dump(typed)) == own
    found = find_run(Path("outputs"), own)
    assert found is not None
    result = run(replace(typed, run_dir=str(moved / "outputs" / "run")))
    assert result.steps == 10
    monkeypatch.chdir("/")
    adapter = find_artifact(str(moved / "outputs" / "run")).require_adapter()
    assert base_of(adapter, advice="").folder() == moved / "files" / "base"


@pytest.mark.parametrize("asks", [True, False])
def test_a_run_keeps_the_date_on_which_it_began(spec, tmp_path, monkeypatch, asks):
    """Killed before midnight and resumed behind it: the same data, where a template shows the day.

    What shows no day is cached for all days alike.
    """
    import graftlab.training.run_date as days

    class Day(datetime.date):
        shown = datetime.date(2026, 12, 31)

        @classmethod
        def today(cls) -> datetime.date:
            return cls.shown

    monkeypatch.setattr(days, "date", Day)
    monkeypatch.setattr(datetime, "date", Day)
    monkeypatch.setenv("GRAFTLAB_CACHE", str(tmp_path / "cache"))
    template = tmp_path / "template.jinja"
    template.write_text(ASKS if asks else ASKS.replace("strftime_now", "''.join"))
    told = replace(spec, model=replace(spec.model, template=str(template)), resume="auto")
    with pytest.raises(Interrupted):
        run(told, observer=Stop(2))
    sets = {path.name for path in (tmp_path / "cache").glob("tokens-*")}
    assert sets
    began = yaml.safe_load((Path(spec.run_dir) / "run.yaml").read_text())["date"]
    assert began == "2026-12-31"

    Day.shown = datetime.date(2027, 1, 1)
    tomorrow = replace(told, date=None)
    assert run(tomorrow).stopped is None
    assert tomorrow.date == "2026-12-31"
    assert {path.name for path in (tmp_path / "cache").glob("tokens-*")} == sets
    tokenizer = told.model.load_tokenizer()
    tokenizer.date = "2026-12-31"
    shown = tokenizer.render_text([Message("user", "Hi")], generation_prompt=True)
    assert shown.startswith("31 December 2026<|im_start|>user") == asks

    run(replace(told, date=None, run_dir=str(tmp_path / "new"), resume=None))
    more = {path.name for path in (tmp_path / "cache").glob("tokens-*")} - sets
    assert bool(more) == asks
    shutil.rmtree(Path(spec.run_dir) / "adapter")
    (Path(spec.run_dir) / "result.json").unlink()
    with pytest.raises(ResumeError, match="began with date=2026-12-31"):
        run(replace(told, date="2027-01-02"))


def test_the_result_says_by_which_limit_it_ended(tmp_path):
    (tmp_path / "result.json").write_text(json.dumps({"out_of_minutes": 3}))
    folder = RunFolder(tmp_path)
    assert [folder.goes_on(minutes) for minutes in (2.0, 3.0, 3.5, None)] == [
        *(False, False),
        *(True, True),
    ]
    (tmp_path / "result.json").write_text("[]")
    assert not folder.goes_on(None)
