"""Runs that leave early: paused, failed, stopped by a signal; and how all of them go on."""

from __future__ import annotations

import os
import signal
from dataclasses import replace

import pytest

from graftlab.adapters.lora import Lora
from graftlab.errors import ConfigError, Interrupted, NonFiniteError, Paused, ResumeError
from graftlab.tracking.folder import RunFolder
from graftlab.training.callbacks.early_stopping import EarlyStopping
from graftlab.training.checkpoint import Checkpointing, CheckpointStore
from graftlab.training.joint.groups import JointJob
from graftlab.training.joint.run import execute_together
from graftlab.training.observer import Observer
from graftlab.training.start import run
from graftlab.training.watch import Callbacks, Samples, Validation
from joint_runs import assert_equal_runs, rows, same_bits, together, varied


class PausesAt(Observer):
    def __init__(self, step: int) -> None:
        self.rungs = {step}

    def verdict(self, step):
        return "not among the best"


class SignalsAt(Observer):
    """Sends this process a signal while a step's end is being told."""

    def __init__(self, step: int) -> None:
        self.step = step

    def after_step(self, row):
        if row["step"] == self.step:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture
def three(spec):
    """Three runs of 6, 12 and 9 steps; validated once an epoch, saved at its end."""
    return varied(spec)[:3]


def resumed(specs):
    return [replace(spec, resume="auto") for spec in specs]


def last_steps(root, count: int) -> list[int]:
    stores = [CheckpointStore(root / str(i) / "checkpoints") for i in range(count)]
    return [saved.step if (saved := store.last()) else 0 for store in stores]


def test_a_paused_run_is_saved_and_leaves_the_others_as_they_were(three, tmp_path):
    ended = together(three, tmp_path / "paused", observers={1: PausesAt(2)})
    assert [e.index for e in ended] == [1, 0, 2]  # it is told at once
    assert isinstance(ended[0].error, Paused)
    assert last_steps(tmp_path / "paused", 3)[1] == 2
    assert not (tmp_path / "paused/1/result.json").exists()
    # Not bit for bit: products over fewer rows may round otherwise.
    together([three[0], three[2]], tmp_path / "never")
    for index, twin in ((0, 0), (2, 1)):
        ours, theirs = tmp_path / "paused" / str(index), tmp_path / "never" / str(twin)
        assert_equal_runs(ours, theirs, loss=1e-5, product=1e-5)


def test_a_paused_run_goes_on_alone_as_if_it_had_been_alone(three, tmp_path):
    together(three, tmp_path / "joint", observers={1: PausesAt(5)})
    run(replace(three[1], run_dir=str(tmp_path / "joint/1"), resume="auto"))
    run(replace(three[1], run_dir=str(tmp_path / "alone")), observer=Rungs(5))
    assert_equal_runs(tmp_path / "joint/1", tmp_path / "alone")


class Rungs(Observer):
    def __init__(self, *steps: int) -> None:
        self.rungs = set(steps)


def test_a_run_stopped_before_its_verdict_is_judged_before_it_goes_on(three, tmp_path):
    class Owing(PausesAt):
        def owes(self, step):
            return True

    class Dies(PausesAt):
        def verdict(self, step):
            raise KeyboardInterrupt  # stands for a death between checkpoint and verdict

    with pytest.raises(KeyboardInterrupt):
        together(three[:2], tmp_path, observers={1: Dies(2)})
    ended = together(resumed(three[:2]), tmp_path, observers={1: Owing(2)})
    assert [(e.index, type(e.error)) for e in ended] == [(1, Paused), (0, type(None))]
    assert [row["step"] for row in rows(tmp_path / "1")] == [0, 1, 2]


def test_runs_begun_alone_go_on_together(three, tmp_path):
    """From different steps: those behind catch up, then all share the passes again."""
    for index, step in ((0, 2), (1, 5)):
        placed = replace(three[index], run_dir=str(tmp_path / f"joint/{index}"))
        with pytest.raises(Paused):
            run(placed, observer=PausesAt(step))
    assert last_steps(tmp_path / "joint", 3) == [2, 5, 0]
    ended = together(resumed(three), tmp_path / "joint")
    assert all(e.error is None for e in ended)
    for index, rung in ((0, 2), (1, 5), (2, None)):
        observer = Rungs(rung) if rung else Observer()
        run(replace(three[index], run_dir=str(tmp_path / f"alone/{index}")), observer=observer)
        assert_equal_runs(tmp_path / f"joint/{index}", tmp_path / f"alone/{index}")


def test_rows_are_right_when_those_behind_leave_before_they_catch_up(three, tmp_path):
    with pytest.raises(Paused):
        run(replace(three[0], run_dir=str(tmp_path / "joint/0")), observer=PausesAt(5))
    run(replace(three[0], run_dir=str(tmp_path / "alone")), observer=Rungs(5))
    ended = together(resumed(three[:2]), tmp_path / "joint", observers={1: PausesAt(2)})
    assert [(e.index, type(e.error)) for e in ended] == [(1, Paused), (0, type(None))]
    assert_equal_runs(tmp_path / "joint/0", tmp_path / "alone")


def test_a_run_that_diverges_fails_alone(three, tmp_path):
    wild = replace(three[1], lr=1e30)
    ended = together([three[0], wild, three[2]], tmp_path / "joint")
    assert [e.index for e in ended] == [1, 0, 2]
    assert isinstance(ended[0].error, NonFiniteError)
    assert "gradient norm" in str(ended[0].error) or "validation loss" in str(ended[0].error)
    together([three[0], three[2]], tmp_path / "never")
    for index, twin in ((0, 0), (2, 1)):
        ours, theirs = tmp_path / "joint" / str(index), tmp_path / "never" / str(twin)
        assert_equal_runs(ours, theirs, loss=1e-5, product=1e-5)


def test_sigterm_saves_all_and_resuming_is_exact(three, tmp_path):
    """The signal arrives while the second run settles step 4: all end behind step 5, as one."""
    together(three, tmp_path / "whole")
    ended = together(three, tmp_path / "stopped", observers={1: SignalsAt(4)})
    assert [e.error.exit_code for e in ended] == [143] * 3
    assert all(isinstance(e.error, Interrupted) for e in ended)
    assert last_steps(tmp_path / "stopped", 3) == [5, 5, 5]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    ended = together(resumed(three), tmp_path / "stopped")
    assert sorted(e.index for e in ended if e.error is None) == [0, 1, 2]
    for index in range(3):
        ours, theirs = tmp_path / "stopped" / str(index), tmp_path / "whole" / str(index)
        assert rows(ours) == rows(theirs)
        assert same_bits(ours, theirs)
        assert same_bits(ours, theirs, "adapter")


def test_a_signal_before_the_first_step_ends_all(three, tmp_path, monkeypatch):
    import graftlab.training.joint.run as joint

    monkeypatch.setattr(joint, "check_apart", lambda *_, **__: os.kill(os.getpid(), signal.SIGTERM))
    ended = together(three, tmp_path)
    assert sorted(e.index for e in ended) == [0, 1, 2]
    assert all(isinstance(e.error, Interrupted) for e in ended)


def test_runs_killed_at_different_savings_end_like_undisturbed_ones(three, tmp_path):
    """What SIGKILL leaves: whole checkpoints of different steps, and logs that are ahead."""

    class Dies(Observer):
        def after_step(self, row):
            if row["step"] == 5:
                raise KeyboardInterrupt  # stands for a death between two savings

    three = [
        replace(spec, checkpoint=Checkpointing(every_epochs=None, every_steps=every, keep="all"))
        for spec, every in zip(three, (2, 3, 4), strict=True)
    ]
    together(three, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        together(three, tmp_path / "killed", observers={2: Dies()})
    assert last_steps(tmp_path / "killed", 3) == [4, 3, 4]
    together(resumed(three), tmp_path / "killed")
    for index in range(3):
        ours, theirs = tmp_path / "killed" / str(index), tmp_path / "whole" / str(index)
        assert [row["step"] for row in rows(ours)] == [row["step"] for row in rows(theirs)]
        assert_equal_runs(ours, theirs)


def test_early_stopping_ends_one_run_and_says_why(three, tmp_path):
    callbacks = Callbacks(
        samples=Samples(prompts=0),
        validation=Validation(every_steps=1),
        chosen={"early_stopping": EarlyStopping(patience=1, min_delta=100.0)},
    )
    ended = together([three[0], replace(three[1], callbacks=callbacks)], tmp_path)
    assert [e.index for e in ended] == [1, 0]
    assert ended[0].result.steps < 12
    assert ended[0].result.stopped.startswith("early stopping")


def test_what_was_finished_is_reported_and_what_is_foreign_refused(three, tmp_path):
    first = together(three, tmp_path)
    again = together(resumed(three), tmp_path)
    assert [e.result for e in again] == [e.result for e in sorted(first, key=lambda e: e.index)]
    other = [replace(three[0], lr=1e-5), *three[1:]]
    ended = {e.index: e.error for e in together(resumed(other), tmp_path)}
    assert isinstance(ended[0], ResumeError)
    assert ended[1] is None


def test_a_folder_with_an_unfinished_run_is_that_jobs_error(three, tmp_path):
    together(three, tmp_path, observers={0: PausesAt(2)})
    (tmp_path / "1" / "result.json").unlink()
    ended = {e.index: e for e in together([three[0], three[1]], tmp_path)}
    assert sorted(ended) == [0, 1]
    assert all(isinstance(e.error, ConfigError) for e in ended.values())
    assert "resume=auto" in str(ended[0].error)
    # Killed between its last checkpoint and its result: finished without another step.
    ended = together(resumed(three[:2]), tmp_path)
    assert [(e.index, e.error) for e in ended] == [(1, None), (0, None)]


def test_a_base_whose_layers_are_not_linear_is_said(three, tmp_path, monkeypatch):
    """The job whose adapter cannot be stacked fails; the others train."""
    import graftlab.training.joint.setup as opening

    def refuse(adapter):
        if adapter.config.r == 8:
            raise ConfigError("only LoRA on linear layers trains jointly")

    monkeypatch.setattr(opening, "require_stackable", refuse)
    ended = {e.index: e.error for e in together(three, tmp_path)}
    assert isinstance(ended[1], ConfigError)
    assert (ended[0], ended[2]) == (None, None)


def test_jobs_must_be_of_one_group(spec, tmp_path):
    jobs = [
        JointJob(spec=s, folder=RunFolder(tmp_path / str(i)))
        for i, s in enumerate([spec, replace(spec, seed=5)])
    ]
    with pytest.raises(AssertionError, match="grouped before"):
        list(execute_together(jobs))


def test_closing_the_generator_gives_the_base_back(spec, tmp_path):
    from graftlab.models.cache import acquire
    from graftlab.training.precision import resolve

    specs = [replace(spec, lora=Lora(rank=2)), replace(spec, epochs=1)]
    jobs = [JointJob(spec=s, folder=RunFolder(tmp_path / str(i))) for i, s in enumerate(specs)]
    outcomes = execute_together(jobs)
    assert next(outcomes).index == 1
    outcomes.close()
    import torch

    device = torch.device("cpu")
    dtype = resolve(spec.precision, device).base_dtype
    with acquire(spec.model, dtype=dtype, device=device) as base:
        assert not [name for name, _ in base.model.named_modules() if "lora" in name]
        assert base.adapter is None


def test_all_have_reached_a_rung_before_any_is_judged(three, tmp_path):
    told = []

    class Judge(Observer):
        rungs = frozenset({2})

        def reached(self, step, valid_loss):
            told.append("reached")

        def verdict(self, step):
            told.append("judged")
            return None

    together(three, tmp_path, observers={i: Judge() for i in range(3)})
    assert told == ["reached"] * 3 + ["judged"] * 3
