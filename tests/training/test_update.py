"""The update of a step: the same however it is batched; the golden curve; what stops a run."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from graftlab.adapters.lora import Lora
from graftlab.errors import GraftlabError
from graftlab.models.hf_base import HFBase
from graftlab.packing.plan import Packing
from graftlab.registry import choices
from graftlab.training.callbacks.early_stopping import EarlyStopping
from graftlab.training.callbacks.plateau import Plateau
from graftlab.training.evaluate import Evaluation
from graftlab.training.module import NonFiniteError
from graftlab.training.optimizers.custom import CustomOptimizer
from graftlab.training.precision import Precision
from graftlab.training.schedule import Schedule
from graftlab.training.spec import TrainSpec
from graftlab.training.start import run
from graftlab.training.watch import Callbacks, Samples, Validation
from pairs import preference_data
from text_tokenizers import TEMPLATES


def rows(spec: TrainSpec) -> list[dict[str, str]]:
    with (Path(spec.run_dir) / "train_log.csv").open() as file:
        return list(csv.DictReader(file))


def final(spec: TrainSpec) -> dict[str, torch.Tensor]:
    return load_file(Path(spec.run_dir) / "adapter-final" / "adapter_model.safetensors")


def distance(ours: dict, theirs: dict) -> float:
    assert ours.keys() == theirs.keys()
    return max((ours[name] - theirs[name]).abs().max().item() for name in ours)


SGD = CustomOptimizer(target="torch.optim.SGD", clip_norm=None)
"""Moves by the gradient itself: AdamW would blow rounding up where a gradient is nearly zero."""


def test_accumulation_changes_nothing(spec, tmp_path):
    """Five rows as 1x5, 5x1 and 2x3 (the last micro-batch short): the same update an epoch."""
    spec = replace(spec, optimizer=SGD, lr=0.1)
    found = {}
    for batch_size, accumulate in [(1, 5), (5, 1), (2, 3)]:
        run_dir = str(tmp_path / f"{batch_size}x{accumulate}")
        one = replace(spec, batch_size=batch_size, accumulate=accumulate, run_dir=run_dir, epochs=3)
        assert run(one).steps == 3
        found[batch_size] = final(one), [float(r["loss"]) for r in rows(one)[1:]]
    for batch_size in (5, 2):
        assert distance(found[1][0], found[batch_size][0]) < 1e-6
        assert found[batch_size][1] == pytest.approx(found[1][1], abs=1e-5)
    assert max(v.abs().max().item() for k, v in found[1][0].items() if "lora_B" in k) > 1e-3


def test_packing_changes_nothing_but_the_rows(spec, tmp_path):
    """All documents in one step, packed or one to a row: the same update."""
    spec = replace(spec, optimizer=SGD, lr=0.1)
    found = []
    for strategy in ("best-fit", "none"):
        one = replace(
            spec,
            packing=Packing(strategy=strategy, max_length=80),
            accumulate=11,
            run_dir=str(tmp_path / strategy),
        )
        assert run(one).steps == 2
        found.append(final(one))
    assert distance(*found) < 1e-6


def test_sharing_the_beginning_of_turns_changes_nothing_but_the_tokens(spec, tmp_path):
    """A template that strips earlier thinking: one tree a conversation, or a document a turn."""
    template, data = tmp_path / "thinking.jinja", tmp_path / "thinking.jsonl"
    template.write_text(TEMPLATES["qwen3"])
    turns = [("user", "Which year?"), ("assistant", "<think>\nside two\n</think>\n\n1974.")]
    talk = [{"role": role, "content": text} for role, text in turns * 3]
    data.write_text(json.dumps({"messages": talk}) + "\n")
    spec = replace(
        spec,
        model=replace(spec.model, template=str(template)),
        data=replace(spec.data, train=str(data)),
        optimizer=SGD,
        lr=0.1,
        batch_size=4,
    )
    found, tokens = [], []
    for share in (True, False):
        packing = Packing(max_length=256, share_prompts=share)
        one = replace(spec, packing=packing, run_dir=str(tmp_path / str(share)))
        assert run(one).steps == 2
        found.append((final(one), [float(row["loss"]) for row in rows(one)[1:]]))
        tokens.append(int(rows(one)[-1]["tokens"]))
    assert tokens[0] < 0.8 * tokens[1]
    assert found[0][1] == pytest.approx(found[1][1], abs=1e-5)
    assert distance(found[0][0], found[1][0]) < 1e-6
    assert max(v.abs().max().item() for k, v in found[0][0].items() if "lora_B" in k) > 1e-3


def test_gradient_checkpointing_changes_nothing(spec, tmp_path):
    found = []
    for on in (False, True):
        model = replace(spec.model, gradient_checkpointing=on)
        one = replace(
            spec, model=model, lora=Lora(dropout=0.3), max_steps=3, run_dir=str(tmp_path / str(on))
        )
        run(one)
        found.append(final(one))
    assert distance(*found) == 0.0


@pytest.mark.parametrize("objective", sorted(choices("objective")))
def test_golden_losses(spec, root, objective, monkeypatch):
    """The first losses of each objective, stored; delete the file to record them anew."""
    golden = Path(__file__).parents[1] / "golden" / f"{objective}.json"
    asked = {"distill": {"teacher": str(root / "teacher")}}
    terms = choices("objective")[objective](**asked.get(objective, {}))
    if terms.takes != "answers":
        monkeypatch.setattr("graftlab.training.setup.read_data", preference_data)
    run(replace(spec, objective=terms, max_steps=20, lr=5e-3))
    losses = [float(row["loss"]) for row in rows(spec)[1:]]
    if not golden.exists():
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(json.dumps(losses) + "\n")
        pytest.fail(f"recorded {golden}; run again")
    assert len(losses) == 20
    assert losses == pytest.approx(json.loads(golden.read_text()), abs=2e-4)
    assert max(losses) - min(losses) > 0.02  # it learns; how is for the file to say


def test_bf16_follows_fp32_at_a_small_learning_rate(spec, tmp_path):
    """Weights of the bf16 run move as far as those of fp32; rounding them each step would not."""
    moved = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        one = replace(
            spec,
            precision=Precision(name=name),
            lr=2e-5,
            schedule=Schedule(shape="constant"),
            max_steps=30,
            run_dir=str(tmp_path / name),
        )
        run(one)
        trained = [value for key, value in final(one).items() if "lora_B" in key]
        assert {value.dtype for value in trained} == {dtype}
        moved[name] = torch.cat([value.float().flatten() for value in trained]).norm().item()
    assert moved["bf16"] == pytest.approx(moved["fp32"], rel=0.1)


def test_a_loss_that_is_not_finite_stops_before_the_update(spec, monkeypatch):
    spec = replace(spec, max_steps=8)
    spec.checkpoint.every_steps = 1
    calls, hidden = [], HFBase.hidden

    def poisoned(self, batch):
        calls.append(torch.is_grad_enabled())
        return hidden(self, batch) * (float("nan") if calls.count(True) > 4 else 1.0)

    monkeypatch.setattr(HFBase, "hidden", poisoned)
    with pytest.raises(NonFiniteError, match="Step 5: the loss is nan"):
        run(spec)
    saved = sorted((Path(spec.run_dir) / "checkpoints").glob("*.ckpt"))
    adapter = torch.load(saved[-1], weights_only=True)["adapter"]
    assert all(value.isfinite().all() for value in adapter.values())
    assert rows(spec)[-1]["step"] == "4"
    monkeypatch.undo()
    assert run(replace(spec, resume="auto")).steps == 8


def test_a_validation_loss_that_is_not_finite_is_an_error(spec, monkeypatch):
    measured = iter([Evaluation({"loss": loss}, None) for loss in (3.0, float("nan"))])
    monkeypatch.setattr("graftlab.training.fit.validate", lambda *a, **k: next(measured))
    with pytest.raises(NonFiniteError, match="Step 5: the validation loss is nan"):
        run(spec)


def test_out_of_memory_names_the_next_thing_to_change(spec, monkeypatch):
    def full(self, batch):
        if torch.is_grad_enabled():
            raise torch.OutOfMemoryError("CUDA out of memory")
        return hidden(self, batch)

    hidden = HFBase.hidden
    monkeypatch.setattr(HFBase, "hidden", full)
    with pytest.raises(GraftlabError, match="batch_size=2 accumulate=2"):
        run(replace(spec, batch_size=4))
    with pytest.raises(GraftlabError, match="gradient_checkpointing=true"):
        run(replace(spec, resume="auto"))


@pytest.mark.parametrize(
    ("callbacks", "reason"),
    [
        ({"early_stopping": EarlyStopping(patience=2, min_delta=100.0)}, "early stopping"),
        ({"plateau": Plateau(patience=3, min_delta=100.0, min_steps=0)}, "plateau"),
    ],
)
def test_runs_stop_for_a_reason_and_finish(spec, callbacks, reason):
    watched = Callbacks(
        samples=Samples(prompts=0), validation=Validation(every_steps=1), chosen=callbacks
    )
    result = run(replace(spec, callbacks=watched, max_steps=30))
    assert reason in result.stopped
    assert result.steps < 30
    assert json.loads((Path(spec.run_dir) / "result.json").read_text())["stopped"] == result.stopped


def test_the_time_limit_ends_a_run_cleanly(spec):
    result = run(replace(spec, max_steps=10_000, max_minutes=0.005))
    assert "max_minutes=0.005" in result.stopped
    assert 1 <= result.steps < 10_000


def test_the_base_comes_back_and_the_next_run_gets_it(spec, tmp_path, monkeypatch):
    """Two runs in one process load the base once and give what solo runs give."""
    from graftlab.models.cache import forget
    from graftlab.models.hf import HFModel

    loads, load = [], HFModel.load
    monkeypatch.setattr(HFModel, "load", lambda *a, **k: loads.append(1) or load(*a, **k))
    forget()
    results = [
        run(replace(spec, lora=lora, max_steps=3, run_dir=str(tmp_path / str(index))))
        for index, lora in enumerate([Lora(rank=4), Lora(rank=8, dora=True), Lora(rank=4)])
    ]
    assert len(loads) == 1
    assert results[0].score == results[2].score != results[1].score
