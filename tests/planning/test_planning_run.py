"""A plan's counts beside those of a run that was really trained."""

from __future__ import annotations

import csv
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from graftlab.planning.estimate import estimate_run
from graftlab.training.checkpoint import Checkpointing
from graftlab.training.module import AdapterModule
from graftlab.training.spec import TrainSpec
from graftlab.training.start import run
from graftlab.training.watch import Callbacks, Samples, Validation
from training_spec import small_root, small_spec


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> TrainSpec:
    """Eleven chats in five rows, validated every third step and every epoch."""
    root = tmp_path_factory.mktemp("planned")
    small_root(root)
    watching = Callbacks(samples=Samples(prompts=0), validation=Validation(every_steps=3))
    return replace(small_spec(root), callbacks=watching, checkpoint=Checkpointing(every_epochs=1))


@pytest.mark.parametrize(
    "changed",
    [{"epochs": 2}, {"batch_size": 2, "accumulate": 2, "epochs": 4}, {"max_steps": 7}],
    ids=str,
)
def test_a_run_takes_the_steps_and_tokens_of_its_plan(small, changed, tmp_path, monkeypatch):
    spec = replace(small, run_dir=str(tmp_path / "run"), **changed)
    plan = estimate_run(replace(spec))
    seen: list[tuple[int, int]] = []
    step = AdapterModule.training_step

    def counting(module: Any, batch: Any, index: int) -> Any:
        seen.append((batch.num_tokens, int((batch.labels >= 0).sum())))
        return step(module, batch, index)

    monkeypatch.setattr(AdapterModule, "training_step", counting)
    result = run(spec)
    folder = Path(spec.run_dir)
    with (folder / "train_log.csv").open() as file:
        rows = list(csv.DictReader(file))
    load = plan.load
    assert (load.steps, load.exact) == (result.steps, True)
    assert len(rows) == load.steps + 1  # and the base
    epoch = seen[: math.ceil(load.budget.rows / spec.batch_size)]
    assert sum(tokens for tokens, _ in epoch) == load.budget.tokens
    assert sum(labels for _, labels in epoch) == load.budget.trained_tokens
    assert load.mean_batch_tokens == load.budget.tokens / len(epoch)
    assert load.tokens_per_step == load.budget.tokens / load.budget.steps_per_epoch
    assert abs(load.passes - len(seen)) <= 1  # of a broken last epoch the share is planned
    most = max(tokens for tokens, _ in seen)
    assert most <= load.batch_tokens < most + 2 * spec.packing.max_length
    if spec.batch_size == 1:
        assert load.batch_tokens == most
        assert load.batch_labels == max(labels for _, labels in seen)
    assert load.validations == sum(1 for row in rows if row["valid_loss"])
    assert load.epochs == pytest.approx(float(rows[-1]["epoch"]))
    assert float(rows[-1]["tokens"]) == sum(tokens for tokens, _ in seen)
    assert float(rows[-1]["trained_tokens"]) == sum(labels for _, labels in seen)

    weights = load_file(folder / "adapter-final" / "adapter_model.safetensors")
    assert plan.shape.trainable == sum(tensor.numel() for tensor in weights.values())
    assert plan.memory.adapter == sum(tensor.nbytes for tensor in weights.values())
    last = max((folder / "checkpoints").glob("*.ckpt"))
    states = torch.load(last, weights_only=True)["optimizer_states"][0]["state"].values()
    state = [t for values in states for t in values.values() if torch.is_tensor(t) and t.ndim]
    assert plan.memory.optimizer == sum(tensor.nbytes for tensor in state) > 0
