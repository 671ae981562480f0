"""Runs on preferences: what is logged, how they are batched, resumed and trained together."""

from __future__ import annotations

import csv
import json
import math
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from graftlab.adapters.lora import Lora
from graftlab.errors import Paused
from graftlab.objectives.cpo import CPO
from graftlab.objectives.dpo import DPO
from graftlab.objectives.kto import KTO
from graftlab.objectives.orpo import ORPO
from graftlab.objectives.simpo import SimPO
from graftlab.packing.plan import Packing
from graftlab.registry import dump
from graftlab.training.joint.groups import group
from graftlab.training.observer import Observer
from graftlab.training.optimizers.custom import CustomOptimizer
from graftlab.training.precision import Precision
from graftlab.training.reference import _Pass
from graftlab.training.setup import Data
from graftlab.training.spec import TrainSpec
from graftlab.training.start import run
from graftlab.training.trainer import TrainerSpec
from graftlab.training.watch import Callbacks, Samples, Validation
from joint_runs import assert_equal_runs, rows, same_bits, together
from left_behind import left_behind
from nursing import nursery
from pairs import pair_set, preference_data, preference_file, some_pairs
from slower import mostly_slow
from training_spec import small_spec

SGD = CustomOptimizer(target="torch.optim.SGD", clip_norm=None)
COLUMNS = {"rewards_chosen", "rewards_rejected", "reward_margin", "reward_accuracy"}
COLUMNS |= {"logps_chosen", "logps_rejected"}


@pytest.fixture
def spec(spec, monkeypatch) -> TrainSpec:
    """Eleven pairs (or answers) in rows of at most 80 tokens."""
    monkeypatch.setattr("graftlab.training.setup.read_data", preference_data)
    return replace(spec, objective=DPO())


def log(spec: TrainSpec) -> list[dict[str, str]]:
    with (Path(spec.run_dir) / "train_log.csv").open() as file:
        return list(csv.DictReader(file))


def final(spec: TrainSpec) -> dict[str, torch.Tensor]:
    return load_file(Path(spec.run_dir) / "adapter-final" / "adapter_model.safetensors")


@pytest.mark.parametrize(
    "objective", [DPO(), ORPO(), SimPO(), CPO(), KTO()], ids=lambda o: o.measure()
)
def test_it_learns_logs_and_validates(spec, objective):
    spec = replace(spec, objective=objective, epochs=5, lr=5e-3)
    result = run(spec)
    found = log(spec)
    assert found[1].keys() >= COLUMNS
    for row in found[1:]:
        assert all(math.isfinite(float(row[name])) for name in COLUMNS if row[name])
    if objective.needs_reference:
        assert float(found[1]["rewards_chosen"]) == pytest.approx(0, abs=1e-5)
    assert float(found[-1]["reward_margin"]) > float(found[1]["reward_margin"])
    assert float(found[-1]["loss"]) < float(found[1]["loss"])
    assert result.measure == objective.measure()
    assert result.valid_documents == 4
    assert result.interval is not None
    base, tuned = found[0], result.metrics
    assert float(base["valid/kl"]) == 0
    assert tuned["valid/kl"] > 0
    assert tuned["valid/accuracy_low"] <= tuned["valid/accuracy"] <= tuned["valid/accuracy_high"]
    assert tuned.keys() == {
        f"valid/{name}"
        for name in ("accuracy", "accuracy_low", "accuracy_high", "margin", "nll", "kl")
    }
    labels = sum(len(c) + len(r) for _, c, r in some_pairs(11))
    if objective.takes == "pairs":
        assert result.trained_tokens == 5 * labels  # pairs are the unit of the loss, not of this


def test_the_base_is_at_chance(spec):
    """Against itself every reward is 0: the loss is log 2, and half of the pairs count as right."""
    spec = replace(spec, max_steps=1)
    assert run(spec).baseline == pytest.approx(math.log(2), abs=1e-6)
    assert float(log(spec)[0]["valid/accuracy"]) == 0.5
    assert float(log(spec)[0]["valid/margin"]) == 0.0


@pytest.mark.parametrize("objective", [DPO(sft_weight=0.2), KTO()], ids=["dpo", "kto"])
def test_accumulation_changes_nothing(spec, objective, tmp_path):
    spec = replace(spec, objective=objective, optimizer=SGD, lr=1.0)
    found = []
    for batch_size, accumulate in [(1, 9), (9, 1), (2, 9)]:
        run_dir = str(tmp_path / f"{batch_size}x{accumulate}")
        one = replace(spec, batch_size=batch_size, accumulate=accumulate, run_dir=run_dir, epochs=4)
        assert run(one).steps == 4, "all rows are one step"
        found.append((final(one), log(one)))
    (first, logged), *others = found
    for weights, steps in others:
        assert max((weights[n] - first[n]).abs().max().item() for n in first) < 1e-5
        for row, wanted in zip(steps[1:], logged[1:], strict=True):
            for name in {"loss", "kl", *COLUMNS} & {n for n in row if row[n]}:
                assert float(row[name]) == pytest.approx(float(wanted[name]), abs=1e-4), name
    assert max(v.abs().max().item() for k, v in first.items() if "lora_B" in k) > 1e-3


@pytest.mark.parametrize(
    "objective", mostly_slow([DPO(loss="ipo"), KTO()], KTO()), ids=["dpo", "kto"]
)
def test_a_paused_run_goes_on_bit_for_bit(spec, objective, tmp_path):
    class Pausing(Observer):
        rungs = (3,)

        def verdict(self, step: int) -> str | None:
            return "enough"

    watched = Callbacks(samples=Samples(prompts=0), validation=Validation(every_steps=2))
    spec = replace(spec, objective=objective, lora=Lora(dropout=0.2), callbacks=watched)
    spec = replace(spec, accumulate=2, epochs=4)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run(replace(spec, run_dir=str(whole)))
    with pytest.raises(Paused):
        run(replace(spec, run_dir=str(parts)), observer=Pausing())
    run(replace(spec, run_dir=str(parts), resume="auto"))
    assert same_bits(parts, whole)
    results = [json.loads((folder / "result.json").read_text()) for folder in (whole, parts)]
    assert results[0]["metrics"] == results[1]["metrics"]
    assert [{k: v for k, v in r.items() if k != "rung_loss"} for r in rows(parts)] == rows(whole)


@pytest.mark.parametrize("objective", mostly_slow([DPO(), KTO()], DPO()), ids=["dpo", "kto"])
def test_a_killed_run_goes_on_bit_for_bit(root, tmp_path, objective):
    """From files, in processes of their own: killed early, in a step and at the end."""
    train = preference_file(tmp_path / "train.jsonl", objective.takes)
    valid = preference_file(tmp_path / "valid.jsonl", objective.takes, count=4)
    spec = replace(small_spec(root), objective=objective, accumulate=2, max_steps=5)
    spec.data.train, spec.data.valid = str(train), str(valid)
    spec.lora.dropout, spec.checkpoint.every_steps = 0.2, 1
    data = dump(spec)
    both = [{"run_dir": str(tmp_path / name)} for name in ("whole", "cached")]
    whole, cached = nursery(data, both, tmp_path)
    assert whole["code"] == cached["code"] == 0
    wanted, events = left_behind(tmp_path / "whole"), len(cached["events"])
    assert events < len(whole["events"]), "the second finds the reference"
    assert left_behind(tmp_path / "cached") == wanted
    assert len(wanted["rows"]) == 6
    places = (8, events // 2, events - 1)
    commands = [
        command
        for place in places
        for command in (
            {"run_dir": str(tmp_path / str(place)), "kill_at": place},
            {"run_dir": str(tmp_path / str(place)), "resume": "auto"},
        )
    ]
    codes = [answer["code"] for answer in nursery(data, commands, tmp_path)]
    assert codes == [-signal.SIGKILL, 0] * 3
    for place in places:
        assert left_behind(tmp_path / str(place)) == wanted, place


@pytest.mark.slow
def test_two_processes_agree_with_one(root, tmp_path):
    """KTO's estimate too, which is of the answers of both; one of them may have no rows left."""
    spec = replace(small_spec(root), objective=KTO(), epochs=2, lr=5e-3, batch_size=2)
    spec.data.train = str(preference_file(tmp_path / "train.jsonl", "labels", count=13))
    spec.data.valid = str(preference_file(tmp_path / "valid.jsonl", "labels", count=4))
    spec.packing.strategy = "none"
    alone = run(replace(spec, run_dir=str(tmp_path / "alone")))
    trainer = TrainerSpec(accelerator="cpu", devices=2, strategy="ddp")
    two = replace(spec, batch_size=1, trainer=trainer, run_dir=str(tmp_path / "both"))
    both = run(two)
    assert both.steps == alone.steps > 4
    assert both.score == pytest.approx(alone.score, abs=1e-5)
    assert both.trained_tokens == alone.trained_tokens
    assert both.metrics == pytest.approx(alone.metrics, abs=1e-4)
    estimates = [
        [float(row["kl"]) for row in log(one)[1:]]
        for one in (replace(spec, run_dir=str(tmp_path / "alone")), two)
    ]
    assert estimates[0] == pytest.approx(estimates[1], abs=1e-4)
    assert max(estimates[0]) > 0.001


@pytest.mark.parametrize("precision", ["fp32", "bf16-mixed", "bf16"])
def test_every_precision_trains(spec, precision):
    spec = replace(spec, precision=Precision(name=precision), epochs=4, lr=5e-3)
    result = run(spec)
    assert result.score < result.baseline
    assert result.metrics["valid/margin"] > 0


def test_all_weights_can_be_trained(spec):
    """The reference is the base as it was lent, and stays it while its weights move."""
    spec = replace(spec, lora=Lora(full=True), epochs=4, lr=1e-3)
    result = run(spec)
    assert result.baseline == pytest.approx(math.log(2), abs=1e-6)
    assert result.score < result.baseline
    assert result.metrics["valid/kl"] > 0


DPOS = [
    (DPO(), Lora(rank=4), 1e-3),
    (DPO(beta=0.5), Lora(rank=8), 3e-3),
    (DPO(loss="ipo", beta=0.3), Lora(rank=4, targets="attn"), 2e-3),
    (DPO(loss="hinge", sft_weight=0.3), Lora(rank=2), 1e-3),
]
KTOS = [
    (KTO(), Lora(rank=4), 1e-3),
    (KTO(beta=0.5, undesirable_weight=1.5), Lora(rank=8), 3e-3),
]


@pytest.mark.parametrize("settings", mostly_slow([DPOS, KTOS], DPOS), ids=["dpo", "kto"])
def test_joint_runs_are_those_alone_with_one_reference(spec, settings, tmp_path, monkeypatch):
    monkeypatch.setenv("GRAFTLAB_CACHE", str(tmp_path / "cache"))
    passes = []
    honest = _Pass._compute
    monkeypatch.setattr(_Pass, "_compute", lambda self, *a: passes.append(a[1]) or honest(self, *a))
    watched = Callbacks(samples=Samples(prompts=0), validation=Validation(every_steps=2))
    spec = replace(spec, callbacks=watched, accumulate=2, epochs=4)
    specs = [replace(spec, objective=o, lora=lora, lr=lr) for o, lora, lr in settings]
    assert group(specs) == [[*range(len(specs))]]
    ended = together(specs, tmp_path / "joint")
    assert [one.error for one in ended] == [None] * len(specs)
    assert len(passes) == len(set(passes)) == (2 if settings is DPOS else 4)
    for index, one in enumerate(specs):
        run(replace(one, run_dir=str(tmp_path / "alone" / str(index))))
        assert_equal_runs(tmp_path / "joint" / str(index), tmp_path / "alone" / str(index))
    assert len(passes) == (2 if settings is DPOS else 4), "found again by the runs alone"
    scores = {one.result.score for one in ended}
    assert len(scores) == len(specs)


def test_other_references_do_not_train_together(spec, tmp_path):
    dpo, simpo = replace(spec, lora=Lora()), replace(spec, objective=SimPO())
    other = replace(spec, lora=Lora(from_run="elsewhere"))
    assert group([dpo, simpo, other, dpo]) == [[0, 3], [1], [2]]


def test_a_prompt_laid_once_trains_as_one_laid_twice(spec, tmp_path, monkeypatch):
    spec = replace(spec, optimizer=SGD, lr=1.0, packing=Packing(max_length=200), accumulate=9)
    found = []
    for shared in (True, False):
        tokens = [pair_set(some_pairs(n, seed=s), shared=shared) for n, s in ((11, 0), (4, 1))]
        data = Data(spec.model.load_tokenizer(), *tokens, [])
        monkeypatch.setattr("graftlab.training.setup.read_data", lambda *_, d=data, **__: d)
        one = replace(spec, run_dir=str(tmp_path / str(shared)), epochs=4)
        result = run(one)
        assert result.steps == 4
        found.append((final(one), result))
    (first, once), (second, twice) = found
    assert max((first[n] - second[n]).abs().max().item() for n in first) < 1e-5
    assert once.score == pytest.approx(twice.score, abs=1e-5)
    assert once.tokens < 0.8 * twice.tokens
