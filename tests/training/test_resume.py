"""Killed at any moment and resumed equals never killed: weights, log, samples and result."""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path

import pytest

from chats import chats
from graftlab.adapters.lora import Lora
from graftlab.errors import ConfigError, ResumeError
from graftlab.registry import dump, restore
from graftlab.training.callbacks.early_stopping import EarlyStopping
from graftlab.training.checkpoint import Checkpointing, CheckpointStore
from graftlab.training.precision import Precision
from graftlab.training.spec import TrainSpec
from graftlab.training.start import run
from graftlab.training.watch import Callbacks, Samples, Validation
from left_behind import left_behind
from nursing import nursery
from wandb_files import history


@pytest.fixture
def busy(spec) -> dict:
    """3 steps an epoch of 2, 2 and 1 micro-batches; validates, samples and saves inside epochs."""
    callbacks = Callbacks(
        validation=Validation(every_steps=2),
        samples=Samples(prompts=1, every_epochs=1),
        chosen={"early_stopping": EarlyStopping(patience=50)},
    )
    changed = replace(
        spec,
        callbacks=callbacks,
        checkpoint=Checkpointing(every_steps=1),
        precision=Precision(name="auto"),
        accumulate=2,
    )
    return dump(replace(changed, lora=Lora(dropout=0.2)))


@pytest.mark.parametrize(
    "stride", [19, pytest.param(2, marks=pytest.mark.slow)], ids=["some", "every-other"]
)
def test_sigkill_at_any_moment(busy, tmp_path, stride):
    """Each life dies a few events further on, over everything a run does."""
    data = busy
    whole = nursery(data, [{"run_dir": str(tmp_path / "whole")}], tmp_path)[0]
    assert whole["code"] == 0
    events = whole["events"]
    reference = left_behind(tmp_path / "whole")
    steps = [int(row["step"]) for row in reference["rows"]]
    assert steps == list(range(7))  # the base, and six optimizer steps
    assert events.count("published") > 12

    # Kill places: into validation and training passes, around every kind of rename, and right
    # before result.json (the last but one event is the rename that publishes it).
    places = sorted({1, 4, len(events) - 1, *range(5, len(events), stride)})
    commands = []
    for place in places:
        run_dir = str(tmp_path / f"killed-{place}")
        commands += [{"run_dir": run_dir, "kill_at": place}, {"run_dir": run_dir, "resume": "auto"}]
    answers = nursery(data, commands, tmp_path)
    died_in = set()
    for place, killed, resumed in zip(places, answers[::2], answers[1::2], strict=True):
        assert killed["code"] == -signal.SIGKILL
        assert resumed["code"] == 0, place
        died_in.add(killed["events"][-1])
        assert left_behind(tmp_path / f"killed-{place}") == reference, (place, killed["events"])
    assert died_in >= {"forward", "publish"}


def test_killed_behind_its_last_checkpoint(spec, tmp_path, monkeypatch):
    """The checkpoints that a run keeps until its end go, though it never trains again."""
    short = replace(spec, checkpoint=Checkpointing(every_steps=1), max_steps=3)
    run(replace(short, run_dir=str(tmp_path / "whole")))
    again = replace(short, run_dir=str(tmp_path / "killed"), resume="auto")
    publish = CheckpointStore.publish

    def dies(store: CheckpointStore, path: Path) -> None:
        publish(store, path)
        if path.name.startswith("step-000003"):
            raise RuntimeError("killed")

    monkeypatch.setattr(CheckpointStore, "publish", dies)
    with pytest.raises(RuntimeError, match="killed"):
        run(again)
    monkeypatch.setattr(CheckpointStore, "publish", publish)
    run(again)
    assert left_behind(tmp_path / "killed") == left_behind(tmp_path / "whole")


@pytest.mark.slow
def test_killed_again_and_again(busy, tmp_path):
    """One run that dies every forty-seven events until it is done."""
    data = busy
    run_dir = str(tmp_path / "run")
    commands = [{"run_dir": str(tmp_path / "whole")}]
    commands += [{"run_dir": run_dir, "resume": "auto", "kill_at": 47}] * 12
    answers = nursery(data, commands, tmp_path)
    codes = [answer["code"] for answer in answers[1:]]
    assert codes.count(-signal.SIGKILL) >= 2
    assert codes[-1] == 0
    assert left_behind(tmp_path / "run") == left_behind(tmp_path / "whole")


def test_signals_anywhere_end_the_run_and_between_steps_it_saves(busy, tmp_path):
    """In the probe, in a training step, and while the finished run is written down."""
    data = busy
    data["checkpoint"] |= {"every_steps": None, "every_epochs": None}  # only the signal can save
    data["callbacks"]["validation"] |= {"every_steps": None, "every_epochs": None}
    data["callbacks"]["early_stopping"] = None  # which waits for validations
    (whole,) = nursery(data, [{"run_dir": str(tmp_path / "whole")}], tmp_path)
    events = whole["events"]
    passes = [index for index, event in enumerate(events, start=1) if event == "forward"]
    places = {
        "probe": passes[0],
        "step": passes[-6],  # behind it: the rest of the last epoch, and its validation
        "hangup": passes[-6],
        "end": len(events) - 1,
    }
    commands = []
    for name, place in places.items():
        run_dir = str(tmp_path / name)
        number = signal.SIGHUP if name == "hangup" else signal.SIGTERM
        commands += [
            {"run_dir": run_dir, "kill_at": place, "signal": int(number)},
            {"run_dir": run_dir, "resume": "auto"},
        ]
    answers = nursery(data, commands[::2], tmp_path)
    assert [answer["code"] for answer in answers] == [143, 143, 129, 143]
    saved = {name: len(list((tmp_path / name / "checkpoints").glob("*.ckpt"))) for name in places}
    assert saved["probe"] == 0
    assert saved["step"] == saved["hangup"] == 1
    assert [answer["code"] for answer in nursery(data, commands[1::2], tmp_path)] == [0] * 4
    for name in places:
        assert left_behind(tmp_path / name) == left_behind(tmp_path / "whole"), name


def test_wandb_files_of_a_killed_run_say_what_one_undisturbed_says(busy, tmp_path):
    data = busy
    data["logger"]["wandb"] = {}
    run_dir = str(tmp_path / "killed")
    commands = [
        {"run_dir": str(tmp_path / "whole")},
        {"run_dir": run_dir, "kill_at": 33},
        {"run_dir": run_dir, "resume": "auto"},
    ]
    answers = nursery(data, commands, tmp_path)
    assert [answer["code"] for answer in answers] == [0, -signal.SIGKILL, 0], answers
    assert len(list((tmp_path / "killed").rglob("run-*.wandb"))) == 2
    (whole,) = history(tmp_path / "whole").values()
    (killed,) = history(tmp_path / "killed", killed=True).values()
    assert sorted(whole) == list(range(7))
    assert "valid_loss" in whole[4]
    assert killed == whole


def test_a_foreign_checkpoint_is_refused(busy, tmp_path):
    """Other data in the same folder: an error that names what differs, and nothing is touched."""
    data = busy
    run_dir, second = str(tmp_path / "run"), str(tmp_path / "second")
    (killed,) = nursery(data, [{"run_dir": run_dir, "kill_at": 40}], tmp_path)
    assert killed["code"] == -signal.SIGKILL
    before = sorted(p.name for p in (tmp_path / "run/checkpoints").iterdir())
    assert before
    copy = tmp_path / "copy.jsonl"
    copy.write_bytes(Path(data["data"]["train"]).read_bytes())
    other = {**data["data"], "train": str(copy)}
    again = {**data, "run_dir": run_dir, "resume": "auto"}
    with pytest.raises(ResumeError, match=r'data\.train: ".*" -> ".*copy\.jsonl"'):
        run(restore(TrainSpec, {**again, "data": other}))
    (killed,) = nursery({**data, "data": other}, [{"run_dir": second, "kill_at": 40}], tmp_path)
    chats(copy, 15)
    with pytest.raises(ResumeError, match="written with other data:"):
        run(restore(TrainSpec, {**again, "data": other, "run_dir": second}))
    with pytest.raises(ConfigError, match=r"holds an unfinished run.*resume=auto"):
        run(restore(TrainSpec, {**again, "resume": None}))
    assert sorted(p.name for p in (tmp_path / "run/checkpoints").iterdir()) == before


def test_a_finished_run_says_so(busy, tmp_path, capsys):
    command = {"run_dir": str(tmp_path / "run"), "max_steps": 1}
    assert nursery(busy, [command], tmp_path)[0]["code"] == 0
    capsys.readouterr()
    result = run(restore(TrainSpec, {**busy, **command, "resume": "auto"}))
    assert result.steps == 1
    assert "Already finished" in capsys.readouterr().out
    with pytest.raises(ResumeError, match=r"lr: 0\.001 -> 0\.5\n(.*\n)*.*lora\.from="):
        run(restore(TrainSpec, {**busy, **command, "resume": "auto", "lr": 0.5}))
    with pytest.raises(ConfigError, match="holds a finished run"):
        run(restore(TrainSpec, {**busy, **command}))
