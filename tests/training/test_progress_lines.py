"""Where nothing is drawn, long work of a run that is no step has lines as steps have."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from graftlab import progress
from graftlab.training.spec import TrainSpec
from graftlab.training.start import run
from graftlab.training.watch import Callbacks, Samples, Validation


def test_validation_and_samples_are_told_while_they_last(
    spec: TrainSpec, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "LINE_SECONDS", -1.0)
    callbacks = Callbacks(samples=Samples(prompts=1), validation=Validation(every_epochs=None))
    run(replace(spec, callbacks=callbacks, epochs=1))
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    found = [line for line in lines if line.startswith(("step ", "sample "))]
    before, of = re.fullmatch(r"step 0/(\d+)  validation 1/\d+", found[0]), found.index
    assert before is not None, found[0]
    first = next(line for line in found if line.startswith(f"step 1/{before[1]}  loss"))
    last = next(line for line in found if line.startswith(f"step {before[1]}/{before[1]}  loss"))
    again = next(line for line in found if line.startswith(f"step {before[1]}/{before[1]}  vali"))
    assert of(found[0]) < of(first) < of(again) < of(last) < of("sample 1/2, 0:00 left")
    assert found[-1].startswith("sample 2/2")
