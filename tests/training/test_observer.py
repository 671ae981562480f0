"""A run under an observer: told of every step, validated at rungs, paused and finished later."""

from __future__ import annotations

from dataclasses import replace

import pytest
from safetensors.torch import load_file

from graftlab.errors import Paused
from graftlab.training.observer import Observer
from graftlab.training.start import run


class Watcher(Observer):
    """Pauses at step 3, and remembers what it was told."""

    def __init__(self, *, pause: bool) -> None:
        self.pause, self.told = pause, []

    def starts(self, *, total_steps, steps_per_epoch, step):
        self.told.append(("starts", total_steps, steps_per_epoch, step))
        self.rungs = {3}

    def after_step(self, row):
        self.told.append(("step", row["step"], "rung_loss" in row, "valid_loss" in row))

    def saved(self, step, path):
        assert path.is_file()
        self.told.append(("saved", step))

    def reached(self, step, valid_loss):
        self.told.append(("reached", step, valid_loss))

    def verdict(self, step):
        self.told.append(("verdict", step))
        return "not among the best" if self.pause else None


def test_a_paused_run_goes_on_as_if_nothing_had_been(spec, tmp_path):
    plain = run(replace(spec, run_dir=str(tmp_path / "plain")))
    first = Watcher(pause=True)
    with pytest.raises(Paused, match="not among the best"):
        run(spec, observer=first)
    assert ("starts", 10, 5, 0) in first.told
    assert ("step", 3, True, False) in first.told  # inside the epoch, for the observer alone
    assert ("step", 2, False, False) in first.told
    assert first.told[-2:] == [("saved", 3), ("verdict", 3)]
    (loss,) = [event[2] for event in first.told if event[0] == "reached"]
    assert loss > 0

    second = Watcher(pause=False)
    resumed = run(replace(spec, resume="auto"), observer=second)
    assert second.told[0] == ("starts", 10, 5, 3)
    assert ("step", 5, False, True) in second.told
    assert (resumed.score, resumed.best_step) == (plain.score, plain.best_step)
    weights = [load_file(tmp_path / d / "adapter-final" / "adapter_model.safetensors")
               for d in ("plain", "run")]  # fmt: skip
    assert weights[0].keys() == weights[1].keys()
    assert all(weights[0][name].equal(weights[1][name]) for name in weights[0])


class Dies(Observer):
    """Kills the run behind the checkpoint of step 3, before that is told or before the verdict."""

    rungs, keeps = frozenset({3}), frozenset({3})

    def __init__(self, *, at: str) -> None:
        self.at = at

    def saved(self, step, path):
        if self.at == "saved":
            raise KeyboardInterrupt

    def verdict(self, step):
        raise KeyboardInterrupt


class Owing(Watcher):
    """Has not heard of the verdict, and still has to keep the checkpoint."""

    keeps = frozenset({3})

    def owes(self, step):
        return True


@pytest.mark.parametrize("at", ["saved", "verdict"])
def test_what_a_kill_behind_a_checkpoint_left_out_is_made_up_for(spec, at):
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        run(spec, observer=Dies(at=at))
    strict = Owing(pause=True)
    with pytest.raises(Paused, match="not among the best"):
        run(replace(spec, resume="auto"), observer=strict)
    assert strict.told == [("starts", 10, 5, 3), ("saved", 3), ("verdict", 3)]
    kind = Owing(pause=False)
    run(replace(spec, resume="auto"), observer=kind)
    assert kind.told[2:4] == [("verdict", 3), ("step", 4, False, False)]


def test_nobody_is_asked_at_the_last_step(spec):
    class AtTheEnd(Watcher):
        def starts(self, *, total_steps, steps_per_epoch, step):
            self.rungs = {total_steps}

    watcher = AtTheEnd(pause=True)
    run(spec, observer=watcher)
    assert not [event for event in watcher.told if event[0] == "verdict"]
    assert ("saved", 10) in watcher.told


def test_what_the_base_says_is_asked_once_a_process(spec, tmp_path, monkeypatch):
    import graftlab.training.fit as fit
    import graftlab.training.samples as samples
    from graftlab.training.watch import Callbacks, Samples

    measured, drawn = [], []
    loss, reply = fit.validate, samples.generate
    monkeypatch.setattr(fit, "validate", lambda *a, **k: measured.append(1) or loss(*a, **k))
    monkeypatch.setattr(samples, "generate", lambda *a, **k: drawn.append(1) or reply(*a, **k))
    spec = replace(spec, callbacks=Callbacks(samples=Samples(prompts=1)), epochs=1)
    first = run(replace(spec, run_dir=str(tmp_path / "first")))
    once = (len(measured), len(drawn))
    second = run(replace(spec, lr=2e-3, run_dir=str(tmp_path / "second")))
    assert (len(measured), len(drawn)) == (2 * once[0] - 1, 2 * once[1] - 1)
    assert first.baseline == second.baseline
    other = replace(spec.packing, max_length=90)
    run(replace(spec, packing=other, run_dir=str(tmp_path / "third")))
    assert len(measured) == 3 * once[0] - 1  # other rows are asked anew
