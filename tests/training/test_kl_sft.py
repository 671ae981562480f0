"""Runs of KL-SFT: exact accumulation and resume, a budget that is kept, and adapter strengths."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from graftlab.adapters.lora import Lora
from graftlab.errors import ConfigError, Paused
from graftlab.models.hf_base import HFBase
from graftlab.objectives.kl_sft import KLSFT, STRENGTHS
from graftlab.objectives.sft import SFT
from graftlab.tracking.history import TIMES
from graftlab.training.checkpoint import Checkpointing, CheckpointStore
from graftlab.training.joint.groups import group, unfit
from graftlab.training.observer import Observer
from graftlab.training.optimizers.custom import CustomOptimizer
from graftlab.training.spec import TrainSpec
from graftlab.training.start import run
from graftlab.training.watch import Callbacks, Samples, Validation
from joint_runs import assert_equal_runs, together
from slower import mostly_slow

SGD = CustomOptimizer(target="torch.optim.SGD", clip_norm=None)


@pytest.fixture
def kept(spec) -> TrainSpec:
    """A run whose KL term matters from the second step on."""
    return replace(spec, objective=KLSFT(kl_lambda=2.0), lr=5e-3)


def rows(spec: TrainSpec) -> list[dict[str, str]]:
    with (Path(spec.run_dir) / "train_log.csv").open() as file:
        return list(csv.DictReader(file))


def weights(spec: TrainSpec) -> bytes:
    folder = Path(spec.run_dir) / "adapter-final"
    return (folder / "adapter_model.safetensors").read_bytes()


def test_the_kl_term_keeps_the_model_near_its_base(kept, tmp_path):
    """Both learn; with the term the KL is smaller, and validation judges by cross-entropy."""
    free = replace(kept, objective=KLSFT(kl_lambda=0.0), run_dir=str(tmp_path / "free"))
    plain = replace(kept, objective=SFT(), run_dir=str(tmp_path / "sft"))
    results = [run(one) for one in (kept, free, plain)]
    ours, theirs, sft = results
    assert ours.metrics["valid/kl"] < 0.6 * theirs.metrics["valid/kl"]
    assert ours.score < ours.baseline
    assert weights(free) == weights(plain)  # without lambda it is SFT
    assert theirs.score == sft.score
    assert ours.baseline == sft.baseline
    assert rows(kept)[0]["valid/kl"] == "0.0"
    last = rows(kept)[-1]
    parts = float(last["nll"]) + 2.0 * float(last["kl"])
    assert float(last["loss"]) == pytest.approx(parts, rel=1e-5)


def test_accumulation_changes_nothing(kept, tmp_path):
    """Five rows as 1x5, 5x1 and 2x3 (the last micro-batch short)."""
    spec, found = replace(kept, optimizer=SGD, lr=0.1, epochs=3), {}
    for batch_size, accumulate in [(1, 5), (5, 1), (2, 3)]:
        run_dir = str(tmp_path / f"{batch_size}x{accumulate}")
        one = replace(spec, batch_size=batch_size, accumulate=accumulate, run_dir=run_dir)
        assert run(one).steps == 3
        found[batch_size] = one
    tensors = {
        size: load_file(Path(one.run_dir) / "adapter-final" / "adapter_model.safetensors")
        for size, one in found.items()
    }
    for size in (5, 2):
        for name, value in tensors[1].items():
            assert (value - tensors[size][name]).abs().max() < 1e-6
        for mine, other in zip(rows(found[1])[1:], rows(found[size])[1:], strict=True):
            for key in ("loss", "nll", "kl"):
                assert float(mine[key]) == pytest.approx(float(other[key]), abs=1e-5)
    assert float(rows(found[1])[-1]["kl"]) > 1e-3
    assert max(v.abs().max().item() for n, v in tensors[1].items() if "lora_B" in n) > 1e-3


class PauseAt(Observer):
    def __init__(self, step: int) -> None:
        self.rungs = (step,)

    def verdict(self, step: int) -> str | None:
        return "a pause"


@pytest.mark.parametrize("dora", mostly_slow([False, True], True))
def test_a_resumed_run_is_the_whole_run(kept, tmp_path, dora):
    """With a lambda that adjusts itself, across a validation; a rung's does not adjust it."""
    watched = Callbacks(samples=Samples(prompts=0), validation=Validation(every_steps=2))
    spec = replace(
        kept,
        objective=KLSFT(kl_lambda=0.5, kl_budget=0.05),
        lora=Lora(dropout=0.2, dora=dora),
        callbacks=watched,
        checkpoint=Checkpointing(every_steps=3),
        accumulate=2,
        epochs=4,
    )
    whole = replace(spec, run_dir=str(tmp_path / "whole"))
    parts = replace(spec, run_dir=str(tmp_path / "parts"))
    run(whole)
    with pytest.raises(Paused):
        run(parts, observer=PauseAt(5))
    run(replace(parts, resume="auto"))
    assert weights(whole) == weights(parts)
    told = TIMES | {"rung_loss"}
    found = [
        [{name: text for name, text in row.items() if name not in told} for row in rows(one)]
        for one in (whole, parts)
    ]
    assert found[0] == found[1]
    lambdas = [row["valid/kl_lambda"] for row in found[0] if row["valid/kl_lambda"]]
    assert len(set(lambdas)) > 3
    results = [
        json.loads((Path(one.run_dir) / "result.json").read_text()) for one in (whole, parts)
    ]
    assert results[0]["strengths"] == results[1]["strengths"]
    assert results[0]["metrics"] == results[1]["metrics"]


def test_the_budget_is_kept(kept, tmp_path):
    """Far beyond it with the same lambda fixed; the best adapter is the best within the budget."""
    watched = Callbacks(samples=Samples(prompts=0), validation=Validation(every_epochs=1))
    spec = replace(kept, callbacks=watched, epochs=10, checkpoint=Checkpointing(keep="all"))
    fixed = replace(spec, objective=KLSFT(kl_lambda=0.05), run_dir=str(tmp_path / "fixed"))
    within = replace(
        spec, objective=KLSFT(kl_lambda=0.05, kl_budget=0.5), run_dir=str(tmp_path / "budget")
    )
    assert run(fixed).metrics["valid/kl"] > 1.0
    result = run(within)
    assert result.metrics["valid/kl"] <= 0.5
    measured = {int(r["step"]): r for r in rows(within) if r["valid/kl"] and r["step"] != "0"}
    allowed = {
        s: float(r["valid_loss"]) for s, r in measured.items() if float(r["valid/kl"]) <= 0.5
    }
    assert 0 < len(allowed) < len(measured)
    assert result.best_step == min(allowed, key=allowed.__getitem__)
    assert min(float(row["valid_loss"]) for row in measured.values()) < result.score
    last = measured[max(measured)]
    assert 0.3 < float(last["valid/kl"]) <= 0.5
    assert float(last["valid/kl_lambda"]) > 0.5


def test_without_an_adapter_within_the_budget_the_last_is_taken(kept, capsys):
    spec = replace(kept, objective=KLSFT(kl_budget=1e-6), epochs=2)
    result = run(spec)
    assert result.best_step == result.steps
    assert "No validated adapter kept to objective.kl_budget" in capsys.readouterr().out
    assert all(
        s.valid_loss is None for s in CheckpointStore(Path(spec.run_dir) / "checkpoints").saved()
    )


def test_strengths_are_told_everywhere(kept, capsys):
    """At 1 they are the run's own score; the KL grows with the strength."""
    result = run(replace(kept, epochs=4))
    table = result.strengths
    assert [row["strength"] for row in table] == list(STRENGTHS)
    assert [*table[0]] == ["strength", "loss", "gain", "kl"]
    own = table[3]
    assert own["loss"] == pytest.approx(result.score, abs=1e-6)
    assert own["kl"] == pytest.approx(result.metrics["valid/kl"], abs=1e-6)
    assert own["gain"] == pytest.approx(result.baseline - result.score, abs=1e-6)
    assert [row["kl"] for row in table] == sorted(row["kl"] for row in table)
    assert table[0]["kl"] < 0.5 * table[3]["kl"]
    written = json.loads((Path(kept.run_dir) / "result.json").read_text())
    assert written["strengths"] == table
    assert "| 1 | " in (Path(result.adapter) / "card.md").read_text()
    shown = capsys.readouterr().out
    assert "adapter strengths" in shown
    assert f"{own['gain']:+.4f}" in shown


def test_no_strengths_without_validation_or_with_sft(kept, tmp_path):
    assert run(replace(kept, objective=SFT(), max_steps=1)).strengths == []
    data = replace(kept.data, valid=None, valid_fraction=0.0)
    spec = replace(kept, data=data, max_steps=1, run_dir=str(tmp_path / "none"))
    assert run(spec).strengths == []


def test_the_whole_model_needs_a_teacher(kept, root):
    full = Lora(full=True)
    with pytest.raises(ConfigError, match=r"lora=none trains the base.*objective\.teacher=FOLDER"):
        replace(kept, lora=full)
    objective = KLSFT(kl_lambda=2.0, teacher=str(root / "base"))
    result = run(replace(kept, lora=full, objective=objective, lr=1e-3))
    assert result.score < result.baseline
    assert rows(kept)[0]["valid/kl"] == "0.0"
    assert result.metrics["valid/kl"] > 1e-3


def test_a_budget_needs_held_out_rows_and_validations(kept):
    spec = replace(kept, objective=KLSFT(kl_budget=0.1))
    with pytest.raises(ConfigError, match=r"objective\.kl_budget is measured on held-out rows"):
        run(replace(spec, data=replace(spec.data, valid=None, valid_fraction=0.0)))
    never = Callbacks(validation=Validation(every_epochs=None))
    with pytest.raises(ConfigError, match=r"objective\.kl_budget is kept by validations"):
        replace(spec, callbacks=never)


@pytest.mark.slow
def test_jointly_trained_runs_are_those_alone(kept, tmp_path):
    """Other lambdas, temperatures and budgets in one group."""
    watched = Callbacks(samples=Samples(prompts=0), validation=Validation(every_steps=2))
    spec = replace(kept, callbacks=watched, accumulate=2, lr=3e-3)
    specs = [
        replace(spec, lora=Lora(rank=4)),
        replace(spec, objective=KLSFT(kl_lambda=0.3, kl_tau=2.0), lora=Lora(rank=8, dropout=0.2)),
        replace(spec, objective=KLSFT(kl_lambda=0.5, kl_budget=0.4), epochs=3),
        replace(spec, objective=KLSFT(kl_lambda=0.0), lora=Lora(rank=2)),
    ]
    assert not unfit(specs)
    assert len(group(specs)) == 1
    for index, one in enumerate(specs):
        run(replace(one, run_dir=str(tmp_path / "alone" / str(index))))
    ended = together(specs, tmp_path / "joint")
    assert [e.error for e in ended] == [None] * 4
    for index in range(4):
        ours, theirs = (tmp_path / kind / str(index) for kind in ("joint", "alone"))
        assert_equal_runs(ours, theirs, loss=2e-5, product=3e-4)
        tables = [
            json.loads((one / "result.json").read_text())["strengths"] for one in (ours, theirs)
        ]
        assert len(tables[0]) == len(STRENGTHS)
        for mine, other in zip(*tables, strict=True):
            assert mine == pytest.approx(other, abs=1e-4)


def test_what_cannot_train_jointly_is_told(kept, root):
    taught = replace(kept, objective=KLSFT(teacher=str(root / "teacher")))
    dora = replace(kept, lora=Lora(dora=True))
    reasons = unfit([taught, dora, kept])
    assert "teacher" in reasons[0]
    assert "DoRA" in reasons[1]
    assert 2 not in reasons
    other = replace(kept, objective=KLSFT(kl_direction="inverse"))
    assert len(group([kept, other, replace(kept, objective=SFT())])) == 2


def test_the_base_passes_once_for_all_that_train_jointly(kept, tmp_path, monkeypatch):
    """One step of three runs: the base alone, then all three together."""
    widths: list[tuple[bool, int]] = []
    hidden = HFBase.hidden

    def watched(self, batch):
        found = hidden(self, batch)
        widths.append((torch.is_grad_enabled(), found.shape[1] // batch.num_tokens))
        return found

    data = replace(kept.data, valid=None, valid_fraction=0.0)
    spec = replace(kept, data=data, max_steps=1)
    monkeypatch.setattr(HFBase, "hidden", watched)
    specs = [replace(spec, lora=Lora(rank=rank)) for rank in (2, 4, 8)]
    assert [e.error for e in together(specs, tmp_path)] == [None] * 3
    assert widths[-2:] == [(False, 1), (True, 3)]
