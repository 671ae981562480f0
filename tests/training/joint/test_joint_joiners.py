"""Runs that join others in the middle: they are what they would be alone, and so are the others."""

from __future__ import annotations

import csv
import os
import signal
import weakref
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

import graftlab.training.joint.run as joint
from graftlab.errors import ConfigError, Interrupted, LeakError, Paused
from graftlab.training.callbacks import recorder
from graftlab.training.checkpoint import CheckpointStore
from graftlab.training.joint.groups import JointJob
from graftlab.training.observer import Observer
from graftlab.training.spec import TrainSpec
from graftlab.training.start import run
from joint_runs import assert_equal_runs, placed, rows, same_bits, together, varied


class PausesAt(Observer):
    def __init__(self, step: int) -> None:
        self.rungs = {step}

    def verdict(self, step):
        return "not among the best"


class Rungs(Observer):
    def __init__(self, *steps: int) -> None:
        self.rungs = set(steps)


class SignalsAt(Observer):
    """Sends this process a signal while a step's end is being told."""

    def __init__(self, step: int) -> None:
        self.step = step

    def after_step(self, row):
        if row["step"] == self.step:
            os.kill(os.getpid(), signal.SIGTERM)


class Arrivals:
    """Lets `jobs` in as soon as others stand at `step`; remembers what it was asked."""

    def __init__(self, step: int, jobs: Sequence[JointJob]) -> None:
        self.step, self.jobs = step, list(jobs)
        self.asked: list[tuple[int, int]] = []

    def __call__(self, step: int, active: int) -> Sequence[JointJob]:
        self.asked.append((step, active))
        jobs = self.jobs if step == self.step else []
        if jobs:
            self.jobs = []
        return jobs


@pytest.fixture
def three(spec) -> list[TrainSpec]:
    """Three runs of 6, 12 and 9 steps."""
    return varied(spec)[:3]


def shares(folder: Path) -> list[float]:
    """A run's part of each step: one in how many it trained."""
    with (folder / "train_log.csv").open() as file:
        return [round(1 / float(row["share"] or 1)) for row in csv.DictReader(file)][1:]


def test_runs_that_join_and_those_they_join_are_what_they_are_alone(three, spec, tmp_path):
    new = varied(spec)[2:5]  # 9, 5 and 6 steps
    begun = replace(three[1], lr=7e-4, resume="auto")
    with pytest.raises(Paused):
        run(replace(begun, run_dir=str(tmp_path / "joint/6")), observer=PausesAt(8))
    jobs = [placed(s, tmp_path / f"joint/{i}") for i, s in enumerate([*new, begun], 3)]
    arrivals = Arrivals(6, jobs)
    ended = together(three, tmp_path / "joint", joiners=arrivals)
    assert [e.error for e in ended] == [None] * 7
    assert [e.index for e in ended] == [0, 4, 5, 2, 3, 1, 6]
    # Two stood at step 6 when four came, of whom three had to catch up, and one was ahead.
    assert arrivals.asked[6:8] == [(6, 2), (1, 3)]
    assert (6, 3) in arrivals.asked
    assert (8, 4) in arrivals.asked
    assert shares(tmp_path / "joint/3") == [3, 3, 3, 3, 3, 2, 3, 3, 4]
    assert shares(tmp_path / "joint/1") == [3] * 8 + [4, 2, 2, 2]
    for index, each in enumerate([*three, *new, begun]):
        observer = Rungs(8) if each is begun else Observer()
        alone = replace(each, run_dir=str(tmp_path / f"alone/{index}"))
        run(alone, observer=observer)
        assert_equal_runs(tmp_path / f"joint/{index}", tmp_path / f"alone/{index}")


def test_a_signal_saves_those_who_sit_out_and_resuming_is_exact(three, spec, tmp_path):
    """It arrives when one has joined and is at step 2; the others stand at 5, inside an epoch."""
    late = varied(spec)[3:4]

    def train(root: Path, observer: Observer):
        jobs = [placed(s, root / "3", observer) for s in late]
        return together(three, root, joiners=Arrivals(5, jobs))

    train(tmp_path / "whole", Observer())
    ended = train(tmp_path / "stopped", SignalsAt(2))
    assert sorted(e.index for e in ended) == [0, 1, 2, 3]
    assert [e.error.exit_code for e in ended if isinstance(e.error, Interrupted)] == [143] * 4
    stores = [CheckpointStore(tmp_path / f"stopped/{i}/checkpoints") for i in range(4)]
    assert [store.last().step for store in stores] == [5, 5, 5, 3]
    resumed = [replace(s, resume="auto") for s in [*three, *late]]
    assert all(e.error is None for e in together(resumed, tmp_path / "stopped"))
    for index in range(4):
        ours, theirs = tmp_path / f"stopped/{index}", tmp_path / f"whole/{index}"
        assert rows(ours) == rows(theirs)
        assert same_bits(ours, theirs)


def test_who_cannot_join_ends_no_other_run(three, tmp_path, monkeypatch):
    """One whose folder holds another run, then one whose adapter does not stay apart."""
    undisturbed = together(three[:2], tmp_path / "undisturbed")
    together([replace(three[0], max_steps=2)], tmp_path / "foreign", observers={0: PausesAt(1)})
    foreign = placed(three[0], tmp_path / "foreign/0")
    leaky = placed(three[2], tmp_path / "leaky")
    checked = []

    def check(base, adapters, **_):
        checked.append(len(adapters))
        if len(checked) == 2:
            raise LeakError("adapters see each other")
        return "isolated"

    monkeypatch.setattr(joint, "check_apart", check)
    ended = {
        e.index: e
        for e in together(three[:2], tmp_path / "joint", joiners=Arrivals(3, [foreign, leaky]))
    }
    assert checked == [2, 1]
    assert isinstance(ended[2].error, ConfigError)
    assert not ended[2].shared
    assert isinstance(ended[3].error, LeakError)
    assert ended[3].shared  # alone it may train
    assert [ended[i].error for i in (0, 1)] == [None, None]
    for outcome in undisturbed:
        index = outcome.index
        assert same_bits(tmp_path / f"joint/{index}", tmp_path / f"undisturbed/{index}")


def test_a_run_that_has_left_is_not_kept_in_memory(three, tmp_path, monkeypatch):
    adapters = []
    attach = joint.Host._admit

    def admit(self, job, **more):
        made = attach(self, job, **more)
        adapters.append(weakref.ref(made.adapter))
        return made

    monkeypatch.setattr(joint.Host, "_admit", admit)
    alive = []

    def joiners(step: int, active: int) -> Sequence[JointJob]:
        if step == 7 and len(adapters) == 3:
            return [placed(three[2], tmp_path / "3")]
        if step == 1 and len(adapters) == 4:
            alive.append([ref() is not None for ref in adapters])
        return ()

    together(three, tmp_path, joiners=joiners)
    assert alive == [[False, True, True, True]]


def test_while_others_catch_up_a_runs_time_stands_still(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(recorder.time, "perf_counter", lambda: clock[0])
    kept = recorder.Recorder(None, peak=1.0, flops_per_token=1.0)
    kept.on_train_start(None, None)
    clock[0] = 5.0
    kept.stand()
    clock[0] = 100.0
    kept.stand()
    assert kept.elapsed == 5.0
    kept.go_on()
    kept.go_on()
    clock[0] = 101.0
    assert kept.elapsed == 6.0
