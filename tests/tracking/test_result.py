"""A result in words, on screen and card; the peak a run reports is its own."""

from __future__ import annotations

import subprocess
import sys
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import pytest

from graftlab.objectives.base import Objective
from graftlab.objectives.distill import Distill
from graftlab.objectives.dpo import DPO
from graftlab.objectives.kl_sft import KLSFT
from graftlab.objectives.kto import KTO
from graftlab.objectives.orpo import ORPO
from graftlab.tracking.card import card, git_commit
from graftlab.tracking.result import how_sure, show_result
from graftlab.tracking.tracker import final
from run_folders import result_of

MEASURE = "from graftlab.tracking.result import peak_rss_mb; print(peak_rss_mb())"
HOLD = "held = bytearray(b'x') * (300 * 2**20)"
START = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {MEASURE!r}])"


def measured(program: str) -> float:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return float(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says it without the starter's")
def test_a_peak_is_not_that_of_whoever_started_the_program() -> None:
    alone, beside = measured(START), measured(f"{HOLD}; {START}")
    assert 5 < alone < 200
    assert beside < alone + 50


def test_a_peak_is_what_was_held_though_it_is_free_again() -> None:
    assert measured(f"{HOLD}; del held; {MEASURE}") > 300


def test_the_change_is_told_with_its_interval(capsys: pytest.CaptureFixture[str]) -> None:
    sure = result_of(3.5, interval=(-0.61, -0.41), valid_documents=96)
    show_result(sure, [], [])
    screen = capsys.readouterr().out
    assert "change: -0.610 to -0.410 (95 % interval, paired), over 96 documents" in screen
    assert "too few" not in screen
    assert final(sure)["change_low"] == -0.61
    assert "change_low" not in final(result_of(3.5))
    open_ = how_sure(result_of(3.9, interval=(-0.3, 0.1), valid_documents=13)) or ""
    assert "over 13 documents: too few to tell small changes from chance; it may be none" in open_
    single = how_sure(result_of(3.9, valid_documents=1)) or ""
    assert single.startswith("change: no interval, over 1 document: too few")
    assert how_sure(result_of(3.9)) is None


def test_metrics_are_told_with_interval_and_unit(capsys: pytest.CaptureFixture[str]) -> None:
    accuracy = {"accuracy": 0.75, "accuracy_low": 0.505, "accuracy_high": 0.898}
    metrics = {f"valid/{name}": n for name, n in {**accuracy, "kl": 0.0123}.items()}
    show_result(result_of(0.6, metrics=metrics), [], [], units=DPO.METRICS)
    rows = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "accuracy 0.750 0.505 to 0.898 of the pairs have the higher reward for" in "\n".join(
        rows
    )
    assert "kl 0.012 nats per token from the base" in rows
    assert not any("low" in row or "high:" in row for row in rows)
    show_result(result_of(0.6, metrics={"valid/own_number": 2.0}), [], [])
    assert "own number 2.000" in " ".join(capsys.readouterr().out.split())


def test_a_run_without_validation_has_no_row_of_dashes(capsys: pytest.CaptureFixture[str]) -> None:
    show_result(replace(result_of(1.0), score=None, baseline=None), [], [])
    screen = capsys.readouterr().out
    assert "without a validation loss" in screen
    assert " - " not in screen
    assert "40 of 40" in screen


@pytest.mark.parametrize("objective", [DPO, ORPO, KTO, KLSFT, Distill])
def test_every_metric_of_ours_has_a_unit(objective: type[Objective]) -> None:
    sums = defaultdict(lambda: 1.0, loss=1.0, kl=1.0)
    asked = objective(teacher="RUN") if objective is Distill else objective()
    names = {name for name in asked.metrics(sums, 4.0) if not name.endswith(("_low", "_high"))}
    assert {"loss", "kl"} <= names or objective is Distill
    assert names - {"loss"} <= set(objective.METRICS)
    assert all(objective.METRICS.values())


def test_a_card_is_for_people(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = result_of(
        0.47031234567891234, interval=(-3.6, -3.4), valid_documents=96, metrics={"valid/nll": 1.0}
    )
    text = card(result, base="base", facts={"training files": "a.jsonl"})
    lines = text.splitlines()
    assert "- score: 0.4703" in lines
    assert "- tokens: 40,000" in lines
    assert "- peak rss mb: 900" in lines
    assert "- valid/nll: 1" in lines
    assert "- compiled: no" in lines
    assert "- training files: a.jsonl" in lines
    assert "- change: -3.600 to -3.400 (95 % interval, paired), over 96 documents" in lines
    assert "git commit" not in text
    assert "base metrics" not in text  # there are none
    subprocess.run(["git", "init", "-q"], check=True)
    assert git_commit(tmp_path) is None  # nothing is committed
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    subprocess.run(["git", *identity, "commit", "-q", "--allow-empty", "-m", "a"], check=True)
    assert f"- git commit: {git_commit(tmp_path)}" in card(result, base="base", facts={})
    assert git_commit(tmp_path) is not None
