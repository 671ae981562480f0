"""What looks on while training, step by step: when it acts, and when it ends a run."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from graftlab.objectives.sft import SFT
from graftlab.training.callbacks.early_stopping import EarlyStopping
from graftlab.training.callbacks.likelihood import LikelihoodAlarm
from graftlab.training.callbacks.plateau import Plateau
from graftlab.training.callbacks.recorder import Recorder
from graftlab.training.callbacks.repetition import RepetitionAlarm
from graftlab.training.callbacks.watchers import Sampler, Stopper, Validator, due
from graftlab.training.evaluate import Evaluation
from graftlab.training.observer import Observer
from graftlab.training.watch import Callbacks, Samples, Validation

PLAN: Any = SimpleNamespace(steps_per_epoch=5, total_steps=20)
MODULE: Any = SimpleNamespace(objective=SFT(), policy=SimpleNamespace(state={}))


def a_recorder() -> Recorder:
    return Recorder(PLAN, peak=1.0, flops_per_token=1.0)


class Trainer(SimpleNamespace):
    """What a callback sees of Lightning's trainer."""

    def __init__(self, **fields: Any) -> None:
        alone = {"global_step": 0, "world_size": 1, "should_stop": False, "is_global_zero": True}
        super().__init__(**{**alone, **fields})


def stopper(*, max_minutes: float | None = None, **spec: Any) -> Stopper:
    return Stopper(
        a_recorder(), Callbacks(chosen=spec), max_minutes=max_minutes, warn=print, states={}
    )


def steps(watched: Stopper, losses: list[float], *, column: str) -> int | None:
    """Feed a loss a step; the step after which the run was stopped."""
    recorder = watched.recorder
    for step, loss in enumerate(losses, start=1):
        trainer: Any = Trainer(global_step=step)
        recorder.row = {column: loss}
        recorder.step_loss = loss
        watched.after_step(trainer, None)  # type: ignore[arg-type]
        if trainer.should_stop:
            return step
    return None


def test_every_n_steps_or_epochs() -> None:
    found = [s for s in range(1, 21) if due(s, PLAN, every_epochs=2, every_steps=None)]
    assert found == [10, 20]
    found = [s for s in range(1, 21) if due(s, PLAN, every_epochs=None, every_steps=7)]
    assert found == [7, 14]
    found = [s for s in range(1, 21) if due(s, PLAN, every_epochs=2, every_steps=7)]
    assert found == [7, 10, 14, 20]
    assert not any(due(s, PLAN, every_epochs=None, every_steps=None) for s in range(1, 21))


@pytest.mark.parametrize(
    ("patience", "min_delta", "losses", "ended"),
    [
        (1, 0.0, [2.0, 2.0], 2),  # as good as the best is no better
        (2, 0.0, [2.0, 2.0, 2.0], 3),
        (2, 0.0, [2.0, 2.5, 1.9, 2.5, 1.9], 5),  # a better one starts the count anew
        (2, 0.5, [2.0, 1.5, 1.5], 3),  # by exactly min_delta is no better
        (2, 0.5, [2.0, 1.4, 0.8], None),
        (2, 0.25, [2.0, 1.875, 1.75, 1.625], 3),  # slowly: always against the best that counted
        (3, 0.0, [2.0, 3.0, 3.0], None),
        (1, 0.0, [2.0, float("nan")], 2),
    ],
)
def test_early_stopping(patience, min_delta, losses, ended) -> None:
    watched = stopper(early_stopping=EarlyStopping(patience=patience, min_delta=min_delta))
    assert steps(watched, losses, column="valid_loss") == ended
    if ended is not None:
        reason = f"early stopping: no better validation loss in {patience} validations"
        assert watched.recorder.stop_reason == reason
        assert watched.recorder.late is None


def test_early_stopping_counts_validations_not_steps() -> None:
    watched = stopper(early_stopping=EarlyStopping(patience=1))
    assert steps(watched, [1.0, 2.0, 3.0, 4.0], column="loss") is None
    assert steps(watched, [1.0, 1.0], column="valid_loss") == 2


@pytest.mark.parametrize(
    ("fields", "losses", "ended"),
    [
        # Without smoothing the loss itself: the best is at step 2, three steps later it ends.
        ({"patience": 3, "smoothing": 0.0}, [3.0, 2.0, 2.0, 2.0, 2.0, 2.0], 5),
        ({"patience": 3, "smoothing": 0.0}, [3.0, 2.0, 2.0, 2.0, 1.0, 1.0, 1.0], None),
        ({"patience": 3, "smoothing": 0.0, "min_steps": 6}, [2.0] * 8, 6),
        ({"patience": 2, "smoothing": 0.0, "min_delta": 0.5}, [3.0, 2.5, 2.5], 3),
        # Half of the past: 4, 3, 2.5 and 4, 3, 3, 3; neither third falls by more than 0.5.
        ({"patience": 1, "smoothing": 0.5, "min_delta": 0.5}, [4.0, 2.0, 2.0, 2.0], 3),
        ({"patience": 2, "smoothing": 0.5, "min_delta": 0.5}, [4.0, 2.0, 3.0, 3.0], 4),
    ],
)
def test_plateau(fields, losses, ended) -> None:
    watched = stopper(plateau=Plateau(**{"min_delta": 0.0, "min_steps": 0, **fields}))
    assert steps(watched, losses, column="loss") == ended
    if ended is not None:
        told = f"plateau: the training loss has not fallen for {fields['patience']} steps"
        assert watched.recorder.stop_reason == told


def test_both_watch_on_and_the_first_reason_is_told() -> None:
    watched = stopper(
        early_stopping=EarlyStopping(patience=1),
        plateau=Plateau(patience=1, min_delta=0.0, min_steps=0, smoothing=0.0),
    )
    assert steps(watched, [2.0, 2.0], column="valid_loss") == 2
    assert watched.recorder.stop_reason is not None
    assert watched.recorder.stop_reason.startswith("early stopping")
    assert watched.states["plateau"]["smooth"] == 2.0


def clocked(minutes: float, watched: Stopper, monkeypatch: pytest.MonkeyPatch) -> None:
    """This start has lasted so long."""
    monkeypatch.setattr(Recorder, "elapsed", minutes * 60)


@pytest.mark.parametrize(("minutes", "late"), [(2.999, False), (3.0, True), (4.0, True)])
def test_time_runs_out_at_its_last_minute(minutes, late, monkeypatch) -> None:
    watched = stopper(max_minutes=5.0)
    watched.spent = 120.0
    clocked(minutes, watched, monkeypatch)
    trainer: Any = Trainer(global_step=7)
    watched.after_step(trainer, None)  # type: ignore[arg-type]
    assert trainer.should_stop == late
    assert watched.recorder.stop_reason == ("max_minutes=5 reached" if late else None)
    assert watched.recorder.late == (5.0 if late else None)


def test_a_run_that_is_done_is_not_late(monkeypatch) -> None:
    watched = stopper(max_minutes=1.0)
    clocked(60, watched, monkeypatch)
    for step, stopped in ((20, False), (19, True)):
        trainer: Any = Trainer(global_step=step)
        watched.after_step(trainer, None)  # type: ignore[arg-type]
        assert trainer.should_stop == stopped


def test_another_reason_goes_before_the_time(monkeypatch) -> None:
    watched = stopper(max_minutes=1.0, early_stopping=EarlyStopping(patience=1))
    clocked(60, watched, monkeypatch)
    watched.states["early_stopping"] = {"best": 1.0}
    watched.recorder.row = {"valid_loss": 1.0}
    watched.after_step(Trainer(global_step=3), None)  # type: ignore[arg-type]
    assert watched.recorder.late is None
    assert watched.states["early_stopping"] == {"best": 1.0, "misses": 1}


def test_without_a_limit_no_time_is_too_long(monkeypatch) -> None:
    watched = stopper()
    clocked(1e9, watched, monkeypatch)
    trainer: Any = Trainer(global_step=3)
    watched.after_step(trainer, None)  # type: ignore[arg-type]
    assert not trainer.should_stop


@pytest.mark.parametrize("told", [(None, None), ("a reason", None), (None, 2.0)])
def test_several_processes_stop_as_the_first_of_them_does(told, monkeypatch) -> None:
    asked: list[Any] = []
    strategy = SimpleNamespace(broadcast=lambda found: asked.append(found) or told)
    watched = stopper(max_minutes=1.0)
    clocked(60, watched, monkeypatch)
    trainer: Any = Trainer(global_step=3, world_size=2, strategy=strategy)
    watched.after_step(trainer, None)  # type: ignore[arg-type]
    assert asked == [(None, 1.0)]
    assert trainer.should_stop == (told != (None, None))
    reason, late = told
    expected = "max_minutes=2 reached" if late else reason
    assert (watched.recorder.stop_reason, watched.recorder.late) == (expected, late)


def test_a_stopper_goes_on_where_it_was_saved(monkeypatch) -> None:
    spec = {
        "early_stopping": EarlyStopping(patience=3),
        "plateau": Plateau(patience=9, min_delta=0.0, min_steps=0, smoothing=0.5),
    }
    first = stopper(max_minutes=5.0, **spec)
    clocked(0, first, monkeypatch)
    assert steps(first, [2.0, 1.0, 3.0, 3.0], column="valid_loss") is None
    clocked(2, first, monkeypatch)  # two minutes, and half a one of an earlier start
    first.spent = 30.0
    saved = first.state_dict()
    again = stopper(max_minutes=5.0, **spec)
    again.load_state_dict(saved)
    assert again.states["early_stopping"] == {"best": 1.0, "misses": 2}
    assert again.states["plateau"] == {"smooth": 2.625, "best": 1.5, "best_step": 2}
    assert again.spent == 150.0
    assert steps(again, [3.0], column="valid_loss") == 1  # the third without a better one
    new = stopper(max_minutes=5.0, **spec)
    clocked(0, new, monkeypatch)
    assert new.state_dict() == {"spent": 0.0, "states": {}}
    assert saved["states"]["early_stopping"]["misses"] == 2  # what was saved stays as it was


class Onlooker(Observer):
    """An observer with a rung, that notes what it is told."""

    def __init__(self, *rungs: int) -> None:
        self.rungs, self.told = rungs, list[tuple[int, float]]()

    def reached(self, step: int, valid_loss: float) -> None:
        self.told.append((step, valid_loss))


def a_validator(*, rungs: tuple[int, ...] = (), **spec: Any) -> tuple[Validator, Onlooker]:
    onlooker = Onlooker(*rungs)
    measured = iter(range(100, 0, -1))  # better every time
    validator = Validator(
        a_recorder(),
        Callbacks(validation=Validation(**spec)),
        base=lambda: Evaluation({"loss": 7.0, "nll": 8.0}, [(7.0, 1)]),
        tuned=lambda: Evaluation({"loss": float(next(measured))}, [(5.0, 1)]),
        observer=onlooker,
    )
    return validator, onlooker


@pytest.mark.parametrize(
    ("spec", "wanted"),
    [
        ({"every_epochs": 1}, [5, 10, 15, 20]),
        ({"every_epochs": None, "every_steps": 6}, [6, 12, 18, 20]),  # and at the last step
        ({"every_epochs": None}, [20]),
    ],
)
def test_the_loss_is_measured_when_due_and_at_the_end(spec, wanted) -> None:
    validator, _ = a_validator(**spec)
    assert [step for step in range(1, 21) if validator.due(step)] == wanted
    assert validator.due(21)  # a run that was extended by a step of its own


def test_the_base_is_measured_before_the_first_step_alone() -> None:
    validator, _ = a_validator()
    validator.on_train_start(Trainer(global_step=3), None)  # type: ignore[arg-type]
    assert validator.recorder.baseline is None
    validator.on_train_start(Trainer(global_step=0), None)  # type: ignore[arg-type]
    assert validator.recorder.baseline == 7.0
    assert validator.recorder.before == {"valid_loss": 7.0, "valid/nll": 8.0}


def test_a_rung_measures_for_the_observer_alone() -> None:
    validator, onlooker = a_validator(rungs=(3, 5), every_epochs=1)
    recorder = validator.recorder
    rows = {}
    for step in (2, 3, 5, 10):
        recorder.step, recorder.row, recorder.due = step, {"step": step}, False
        validator.after_step(Trainer(global_step=step), MODULE)
        rows[step] = (dict(recorder.row), recorder.due)
    assert rows[2] == ({"step": 2}, False)
    assert rows[3] == ({"step": 3, "rung_loss": 100.0}, True)
    assert rows[5] == ({"step": 5, "valid_loss": 99.0, "rung_loss": 99.0}, True)
    assert rows[10] == ({"step": 10, "valid_loss": 98.0}, True)
    assert onlooker.told == [(3, 100.0), (5, 99.0)]
    assert (recorder.best, recorder.best_step) == (98.0, 10)  # never the rung's


def test_one_process_of_several_tells_the_observer() -> None:
    validator, onlooker = a_validator(rungs=(3,))
    validator.after_step(Trainer(global_step=3, is_global_zero=False), None)  # type: ignore[arg-type]
    assert validator.recorder.row["rung_loss"] == 100.0
    assert onlooker.told == []


class Book:
    """Sampled replies: shares of repeated text of (base, adapter), one list a time."""

    def __init__(self, *repeated: list[tuple[float, float]]) -> None:
        self.repeated, self.steps, self.rows = list(repeated), list[int](), list[Any]()

    def last(self) -> list[Any]:
        return self.rows

    def draw(self, step: int) -> list[tuple[float, float]]:
        self.steps.append(step)
        return self.repeated.pop(0)


def a_sampler(*repeated: list[tuple[float, float]], **spec: Any) -> tuple[Any, list[str]]:
    told: list[str] = []
    book: Any = Book(*repeated)
    spec = {"samples": Samples(prompts=2, every_steps=2, every_epochs=None), **spec}
    made = Sampler(
        *(a_recorder(), Callbacks(**spec)),
        book=book,
        precision="fp32",
        warn=told.append,
        states={},
    )
    return made, told


def run_to(made: Any, last: int) -> int | None:
    for step in range(1, last + 1):
        trainer: Any = Trainer(global_step=step)
        made.after_step(trainer, None)
        if trainer.should_stop:
            return step
    return None


def test_samples_are_drawn_when_due_and_warn() -> None:
    made, told = a_sampler([(0.0, 0.5)], [(0.25, 0.75), (0.5, 0.6)], [(0.0, 0.0)])
    assert run_to(made, 6) is None
    assert made.book.steps == [2, 4, 6]
    assert len(told) == 1  # half is no more than the threshold
    start = "step 4: 75% of a sampled reply repeats itself (of the base's own reply: 25%)"
    assert told[0].startswith(start)


def test_samples_are_drawn_by_epochs() -> None:
    made, _ = a_sampler([], [], samples=Samples(prompts=2, every_epochs=1))
    assert run_to(made, 12) is None
    assert made.book.steps == [5, 10]


def test_a_complaint_ends_the_run_where_that_is_asked_for() -> None:
    alarm = RepetitionAlarm(threshold=0.5, stop=True)
    made, told = a_sampler([(0.9, 0.9)], [(0.0, 0.9)], chosen={"repetition": alarm})
    assert run_to(made, 9) == 4  # what the base does as well is no complaint
    assert len(told) == 2
    assert "no fault of the adapter" in told[0]
    assert made.recorder.stop_reason == (
        "step 4: 90% of a sampled reply repeats itself (of the base's own reply: 0%)"
    )


def test_without_an_alarm_nothing_is_said() -> None:
    made, told = a_sampler([(0.0, 1.0)], chosen={})
    assert run_to(made, 3) is None
    assert (made.book.steps, told) == ([2], [])


def test_replies_are_kept_with_a_checkpoint() -> None:
    made, _ = a_sampler()
    made.book.rows = [{"step": 1}]
    saved = made.state_dict()
    made.book.rows.append({"step": 2})
    again, _ = a_sampler()
    again.load_state_dict(saved)
    assert again.book.rows == [{"step": 1}]


def rewarded(watched: Stopper, rewards: list[float]) -> int | None:
    """Feed the chosen answers' reward of each step; the step after which the run was stopped."""
    for step, reward in enumerate(rewards, start=1):
        trainer: Any = Trainer(global_step=step)
        watched.recorder.step_metrics = {"loss": 0.5, "rewards_chosen": reward}
        watched.after_step(trainer, None)  # type: ignore[arg-type]
        if trainer.should_stop:
            return step
    return None


WOBBLE = [0.02, -0.03, 0.01, 0.0, -0.01, 0.03, -0.02, 0.0, 0.01, -0.01]


@pytest.mark.parametrize(
    ("slope", "ended"),
    [(-0.01, 20), (-0.001, 40), (0.0, None), (0.01, None)],
    ids=["fast", "slow", "not", "rises"],
)
def test_falling_likelihood_is_told_with_its_remedy(capsys, slope, ended) -> None:
    """Blocks of ten steps; a slow fall is seen once it exceeds what chance explains."""
    rewards = [slope * n + WOBBLE[n % 10] for n in range(60)]
    assert rewarded(stopper(likelihood=LikelihoodAlarm(steps=10, stop=True)), rewards) == ended
    capsys.readouterr()
    assert rewarded(stopper(likelihood=LikelihoodAlarm(steps=10)), rewards) is None
    said = capsys.readouterr().out
    assert said.count("the chosen answers become less likely") == (0 if ended is None else 1)
    assert ("objective.sft_weight" in said) == (ended is not None)


def test_a_fall_that_has_ended_is_no_alarm() -> None:
    """Low, but no longer falling; and noise whose mean wanders within its own error."""
    rewards = [0.0] * 10 + [-1.0] * 40
    assert rewarded(stopper(likelihood=LikelihoodAlarm(steps=10, stop=True)), rewards) == 20
    noisy = [3.0 * (-1) ** n - (0.2 if n >= 10 else 0) for n in range(40)]
    assert rewarded(stopper(likelihood=LikelihoodAlarm(steps=10, stop=True)), noisy) is None


def test_runs_without_rewards_are_not_watched() -> None:
    watched = stopper(likelihood=LikelihoodAlarm(steps=2, stop=True))
    assert steps(watched, [1.0, 2.0, 3.0, 4.0, 5.0], column="loss") is None
