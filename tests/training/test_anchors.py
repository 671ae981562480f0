"""Anchors of KL-SFT: kept to and not learnt, a share of all labels, part of the run's identity."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from chats import chats
from graftlab.adapters.attach import attach
from graftlab.adapters.lora import Lora
from graftlab.errors import ConfigError, DataError, Paused, ResumeError
from graftlab.models.hf_base import HFBase
from graftlab.objectives.kl_sft import KLSFT
from graftlab.objectives.policy import Policy
from graftlab.packing.parts import positions_of, segments_of_kind
from graftlab.planning.inputs import read_documents
from graftlab.sweeps.step_counts import lengths_of
from graftlab.tracking.folder import RunFolder
from graftlab.training.anchors import drawn
from graftlab.training.joint.groups import group
from graftlab.training.observer import Observer
from graftlab.training.optimizers.custom import CustomOptimizer
from graftlab.training.setup import Setup, resolve_setup
from graftlab.training.spec import TrainSpec
from graftlab.training.start import run
from graftlab.types import ANCHOR, IGNORE
from joint_runs import assert_equal_runs, together

OTHERS = ("name a colour", "what is the time", "tell me of the sea", "who are you", "sing")


@pytest.fixture
def anchors(tmp_path) -> Path:
    """Five conversations that have nothing to do with counting."""
    path = tmp_path / "anchors.jsonl"
    rows = [
        [("user", asked), ("assistant", f"{asked[::-1]} and so on" * (1 + n % 2))]
        for n, asked in enumerate(OTHERS)
    ]
    turns = [[{"role": role, "content": text} for role, text in row] for row in rows]
    path.write_text("".join(json.dumps({"messages": row}) + "\n" for row in turns))
    return path


@pytest.fixture
def anchored(spec, anchors) -> TrainSpec:
    objective = KLSFT(kl_lambda=2.0, anchors=str(anchors), anchors_share=0.4)
    return replace(spec, objective=objective, lr=5e-3)


def setup_of(spec: TrainSpec) -> Setup:
    folder = RunFolder(Path(spec.run_dir))
    folder.path.mkdir(parents=True, exist_ok=True)
    return resolve_setup(spec, folder)


def weights(spec: TrainSpec) -> dict[str, torch.Tensor]:
    return load_file(Path(spec.run_dir) / "adapter-final" / "adapter_model.safetensors")


def test_as_many_are_drawn_as_come_nearest_to_the_share():
    labels = np.array([10, 20, 30, 40])
    for share in (0.01, 0.2, 0.5, 0.9):
        places = drawn(labels, trained=200, share=share, seed=3)
        wanted = 200 * share / (1 - share)
        reached = labels[places].sum()
        assert len(places) >= 1
        assert abs(reached - wanted) <= 20 or len(places) == 1
        assert places.tolist() == drawn(labels, trained=200, share=share, seed=3).tolist()
        counts = np.bincount(places, minlength=4)
        assert counts.max() - counts.min() <= 1  # all before any again
    assert len(places) > 4
    orders = {tuple(drawn(labels, trained=200, share=0.3, seed=seed)) for seed in range(8)}
    assert len(orders) > 1


def test_they_lie_behind_the_training_documents(anchored, spec, capsys):
    plain, mixed = setup_of(spec).data, setup_of(anchored).data
    count = len(plain.train)
    added = len(mixed.train) - count
    assert added >= 2
    for index in range(count):
        assert (mixed.train[index].input_ids == plain.train[index].input_ids).all()
        assert mixed.train[index].segments is None
    kinds = [mixed.train[count + n].segments[:, 2].tolist() for n in range(added)]
    assert kinds == [[ANCHOR]] * added
    labels = mixed.train.num_labels
    share = labels[count:].sum() / labels.sum()
    assert share == pytest.approx(0.4, abs=0.12)
    assert mixed.train.lengths.sum() == len(mixed.train.input_ids)
    assert mixed.valid.fingerprint == plain.valid.fingerprint
    assert mixed.train.fingerprint != plain.train.fingerprint
    assert f"{added} documents from 5" in capsys.readouterr().out


def test_the_loss_is_ce_on_the_trained_and_kl_on_the_anchors(anchored):
    """Of all logits; the base is asked about the anchors alone."""
    setup = setup_of(anchored)
    base = anchored.model.load(dtype=torch.float32, device=torch.device("cpu"))
    adapter = attach(base, Lora(rank=4), seed=0, dtype=torch.float32)
    with torch.no_grad():
        for _, parameter in adapter.named_parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.manual_seed(1)), alpha=0.05)
    policy = Policy(base, adapter)
    asked: list[tuple[bool, int]] = []
    hidden = base.hidden
    base.hidden = lambda b: asked.append((torch.is_grad_enabled(), b.num_tokens)) or hidden(b)
    found = dict.fromkeys(("nll", "kl", "loss"), 0.0)
    exact = dict.fromkeys(found, 0.0)
    tokens = 0
    for batch in setup.plan.train:
        for name, value in anchored.objective.terms(policy, batch).items():
            found[name] += value.item()
        where = batch.labels[0] != IGNORE
        kept = positions_of(batch, segments_of_kind(batch, ANCHOR))
        tokens += int(kept.sum())
        with torch.no_grad():
            tuned = base.logits(hidden(batch)[0]).double().log_softmax(-1)
            with adapter.disabled():
                alone = base.logits(hidden(batch)[0]).double().log_softmax(-1)
        nll = -tuned.gather(1, batch.labels[0].clamp(min=0)[:, None])[:, 0]
        kl = (alone.exp() * (alone - tuned)).sum(-1)
        exact["nll"] += nll[where & ~kept].sum().item() / 0.6
        exact["kl"] += kl[where & kept].sum().item() / 0.4
    exact["loss"] = exact["nll"] + 2.0 * exact["kl"]
    assert found == pytest.approx(exact, rel=1e-5)
    assert exact["kl"] > 1.0
    passes = [count for graph, count in asked if not graph]
    batches = len(passes)
    assert sum(passes) <= tokens + batches  # one dummy where a micro-batch has none
    assert tokens < sum(count for graph, count in asked if graph) / 2


def test_what_is_kept_stays(anchored, tmp_path, anchors):
    """The answers to the anchors' prompts move less than with no term, and nothing is learnt."""
    valid = replace(anchored.data, valid=str(anchors))
    free = KLSFT(kl_lambda=0.0)
    results = {}
    for name, objective in (("kept", anchored.objective), ("free", free)):
        spec = replace(anchored, objective=objective, data=valid, epochs=6)
        results[name] = run(replace(spec, run_dir=str(tmp_path / name)))
    assert results["kept"].metrics["valid/kl"] < 0.6 * results["free"].metrics["valid/kl"]
    own = run(replace(anchored, epochs=6, run_dir=str(tmp_path / "own")))
    assert own.score < own.baseline - 1.0


def test_accumulation_changes_nothing(anchored, tmp_path):
    spec = replace(
        anchored, optimizer=CustomOptimizer(target="torch.optim.SGD", clip_norm=None), lr=0.1
    )
    rows = len(setup_of(spec).plan.train.rows)
    assert rows >= 5
    found = []
    for batch_size, accumulate in [(1, rows), (rows, 1), (2, -(-rows // 2))]:
        run_dir = str(tmp_path / f"{batch_size}")
        one = replace(spec, batch_size=batch_size, accumulate=accumulate, run_dir=run_dir, epochs=3)
        assert run(one).steps == 3
        found.append(weights(one))
    for other in found[1:]:
        assert max((found[0][n] - other[n]).abs().max().item() for n in other) < 1e-6
    assert max(v.abs().max().item() for n, v in found[0].items() if "lora_B" in n) > 1e-3


class PauseAt(Observer):
    def __init__(self, step: int) -> None:
        self.rungs = (step,)

    def verdict(self, step: int) -> str | None:
        return "a pause"


def test_resume_is_exact_and_other_anchors_are_another_run(anchored, anchors, tmp_path):
    spec = replace(anchored, lora=Lora(dropout=0.2), epochs=3)
    whole = replace(spec, run_dir=str(tmp_path / "whole"))
    parts = replace(spec, run_dir=str(tmp_path / "parts"))
    run(whole)
    with pytest.raises(Paused):
        run(parts, observer=PauseAt(5))
    text = anchors.read_text()
    anchors.write_text(text.replace("colour", "number"))
    with pytest.raises(ResumeError, match="other data"):
        run(replace(parts, resume="auto"))
    anchors.write_text(text)
    run(replace(parts, resume="auto"))
    ours, theirs = weights(whole), weights(parts)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_they_train_jointly(anchored, tmp_path, monkeypatch):
    specs = [
        replace(anchored, lora=Lora(rank=4)),
        replace(anchored, lora=Lora(rank=8), objective=replace(anchored.objective, kl_lambda=0.3)),
    ]
    assert len(group(specs)) == 1
    other = replace(anchored.objective, anchors_share=0.3)
    assert len(group([*specs, replace(anchored, objective=other)])) == 2
    for index, one in enumerate(specs):
        run(replace(one, run_dir=str(tmp_path / "alone" / str(index))))
    bare: list[int] = []
    hidden = HFBase.hidden
    monkeypatch.setattr(
        HFBase,
        "hidden",
        lambda self, batch: (
            (bare.append(batch.num_tokens) if not torch.is_grad_enabled() else None)
            or hidden(self, batch)
        ),
    )
    assert [e.error for e in together(specs, tmp_path / "joint")] == [None] * 2
    assert bare
    for index in range(2):
        ours, theirs = (tmp_path / kind / str(index) for kind in ("joint", "alone"))
        assert_equal_runs(ours, theirs, loss=2e-5, product=3e-4)


def test_a_plan_counts_them(anchored):
    from graftlab.models.metadata import read_metadata

    documents = read_documents(anchored, read_metadata(anchored.model))
    setup = setup_of(anchored)
    assert documents.exact
    assert sorted(documents.lengths) == sorted(setup.data.train.lengths)
    both = [replace(anchored, epochs=epochs) for epochs in (2, 3)]
    assert {one.steps_per_epoch for one in lengths_of(both)} == {setup.plan.steps_per_epoch}


def test_bad_anchors_are_named(anchored, anchors, tmp_path):
    def asking(path: Path, **packing) -> TrainSpec:
        objective = replace(anchored.objective, anchors=str(path))
        return replace(anchored, objective=objective, **packing)

    with pytest.raises(ConfigError, match=r"objective\.anchors=.*nowhere.*does not exist"):
        run(asking(tmp_path / "nowhere.jsonl"))
    bad = tmp_path / "bad.jsonl"
    bad.write_text(anchors.read_text() + '{"messages": [{"role": "user", "content": "?"}]}\n')
    with pytest.raises(DataError, match=r"(?s)objective\.anchors: 1 of 6 rows.*bad\.jsonl:6"):
        run(asking(bad))
    long = chats(tmp_path / "long.jsonl", 1)
    long.write_text(long.read_text().replace("count", "count " * 90))
    with pytest.raises(DataError, match=r"objective\.anchors=.*longer than packing\.max_length=80"):
        run(asking(long))
    with pytest.raises(ConfigError, match=r"objective\.anchors_share"):
        KLSFT(anchors="a", anchors_share=1.0)
