"""Intervals over documents: against the textbook, against chance, and through a run."""

from __future__ import annotations

import random
from dataclasses import replace
from math import nan
from pathlib import Path

import pytest

from graftlab.errors import Paused
from graftlab.objectives.sft import SFT
from graftlab.reports.verdict import interval
from graftlab.tracking.result import Result
from graftlab.training.observer import Observer
from graftlab.training.paired import paired_interval
from graftlab.training.start import run

Documents = list[tuple[float, int]]


def test_of_equally_long_documents_it_is_the_paired_t_interval() -> None:
    base: Documents = [(40.0, 20), (36.0, 20), (50.0, 20), (44.0, 20)]
    tuned: Documents = [(38.0, 20), (35.0, 20), (46.0, 20), (43.0, 20)]
    wanted = interval([(a - b) / 20 for (b, _), (a, _) in zip(base, tuned, strict=True)])
    assert paired_interval(base, tuned) == pytest.approx((wanted.low, wanted.high))


def test_nineteen_of_twenty_intervals_hold_the_true_change() -> None:
    """Documents of a few to hundreds of labels, hard ones and easy ones, 40 at a time."""
    dice = random.Random(0)
    held = 0
    for _ in range(600):
        base, tuned = [], []
        for _ in range(40):
            labels = dice.randint(5, 200)
            hardness = dice.gauss(3.0, 1.0)
            base.append((labels * hardness, labels))
            tuned.append((labels * (hardness - 0.2 + dice.gauss(0, 0.3)), labels))
        found = paired_interval(base, tuned)
        assert found is not None
        held += found[0] <= -0.2 <= found[1]
    assert 0.925 < held / 600 < 0.975


def test_of_one_document_or_no_number_there_is_none() -> None:
    assert paired_interval([(4.0, 2), (0.0, 0)], [(3.0, 2), (0.0, 0)]) is None
    assert paired_interval([(nan, 2), (1.0, 2)], [(3.0, 2), (1.0, 2)]) is None


def test_a_run_tells_its_interval_and_resuming_keeps_it(spec, tmp_path: Path) -> None:
    whole = run(spec)
    assert whole.interval is not None
    assert whole.score is not None
    assert whole.baseline is not None
    low, high = whole.interval
    assert low < whole.score - whole.baseline < high
    assert whole.valid_documents == 4
    card = (Path(whole.adapter) / "card.md").read_text(encoding="utf-8")
    assert "(95 % interval, paired), over 4 documents: too few" in card
    assert "- training files: train.jsonl" in card
    assert "- validation files: valid.jsonl" in card
    assert "/train.jsonl" not in card
    assert "unknown" not in card
    saved = Result.read(tmp_path / "run" / "result.json")
    assert saved.interval is not None
    assert tuple(saved.interval) == whole.interval

    class Once(Observer):
        rungs = (7,)

        def verdict(self, step: int) -> str | None:
            return "the test pauses it"

    parts = replace(spec, run_dir=str(tmp_path / "parts"))
    with pytest.raises(Paused):
        run(parts, observer=Once())
    again = run(replace(parts, resume="auto"))
    assert (again.interval, again.valid_documents) == (whole.interval, whole.valid_documents)


class Summed(SFT):
    """An objective that gives no loss by label."""

    def validation(self, policy, batch):
        return {"loss": policy.nll(batch).sum()}


def test_without_losses_by_label_there_is_no_interval(spec) -> None:
    result = run(replace(spec, objective=Summed()))
    assert result.score is not None
    assert result.interval is None
    assert result.valid_documents is None
