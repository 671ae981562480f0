"""Runs trained jointly are what they are alone: curves, weights, folders, checkpoints."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from graftlab.adapters.lora import Lora
from graftlab.errors import GraftlabError
from graftlab.tracking.loggers import Loggers
from graftlab.tracking.tensorboard import TensorBoardLogs
from graftlab.tracking.wandb import WandbLogs
from graftlab.training.joint import scheduler as table
from graftlab.training.precision import Precision
from graftlab.training.start import run
from graftlab.training.watch import Callbacks, Samples, Validation
from joint_runs import assert_equal_runs, distance, rows, together, varied
from training_spec import small_spec
from wandb_files import history

WATCHED = Callbacks(
    samples=Samples(prompts=2, every_epochs=2), validation=Validation(every_steps=2)
)


def alone(specs, root: Path) -> None:
    for index, spec in enumerate(specs):
        run(replace(spec, run_dir=str(root / str(index))))


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def both(root, tmp_path_factory):
    """Five different runs, alone and jointly: (specs, outcomes, folder of each kind)."""
    specs = varied(replace(small_spec(root), callbacks=WATCHED))
    folder = tmp_path_factory.mktemp("both")
    alone(specs, folder / "alone")
    return specs, together(specs, folder / "joint"), folder


def test_curves_and_weights_are_those_of_runs_alone(both):
    specs, ended, folder = both
    assert [e.error for e in ended] == [None] * 5
    steps = [e.result.steps for e in sorted(ended, key=lambda e: e.index)]
    assert steps == [6, 12, 9, 5, 6]  # they did end at different steps
    for index in range(len(specs)):
        assert_equal_runs(folder / "joint" / str(index), folder / "alone" / str(index))
    # The runs differ by much more than what was allowed above.
    apart = [rows(folder / "alone" / str(i))[4]["loss"] for i in range(5)]
    assert len({round(loss, 3) for loss in apart}) == 5


def test_each_is_told_of_when_its_own_last_step_is_done(both):
    _, ended, _ = both
    assert [e.index for e in ended] == [3, 0, 4, 2, 1]  # 5, 6, 6, 9 and 12 steps


def test_results_are_those_of_runs_alone(both):
    specs, ended, folder = both
    for index in range(len(specs)):
        one, other = (
            json.loads((folder / kind / str(index) / "result.json").read_text())
            for kind in ("joint", "alone")
        )
        assert one.keys() == other.keys()
        for name in one.keys() - {"tokens_per_second", "peak_rss_mb", "adapter"}:
            assert one[name] == pytest.approx(other[name], abs=1e-5), name
    assert {e.index: e.result.score for e in ended} == {
        i: json.loads((folder / "joint" / str(i) / "result.json").read_text())["score"]
        for i in range(5)
    }


def test_folders_hold_the_same_files(both):
    specs, _, folder = both

    def named(kind: str, index: int) -> set[str]:
        # The validation loss in a checkpoint's name may differ in its last digit.
        return {name.split("-valid-")[0] for name in files(folder / kind / str(index))}

    for index in range(len(specs)):
        assert named("joint", index) == named("alone", index)
        assert "adapter/adapter_model.safetensors" in files(folder / "joint" / str(index))
        texts = [
            (folder / kind / str(index) / "samples.md").read_text() for kind in ("joint", "alone")
        ]
        assert texts[0].count("**base**") == texts[1].count("**base**") > 0


def test_checkpoints_are_those_of_runs_alone(both):
    specs, _, folder = both
    compared = 0
    for index in range(len(specs)):
        for path in sorted((folder / "joint" / str(index) / "checkpoints").glob("*.ckpt")):
            alone = folder / "alone" / str(index) / "checkpoints"
            (twin,) = alone.glob(f"{path.name[:11]}*.ckpt")
            ours, theirs = (torch.load(p, weights_only=True) for p in (path, twin))
            assert set(ours) == set(theirs)
            assert ours["loops"]["fit_loop"] == theirs["loops"]["fit_loop"]
            for name in ("epoch", "global_step", "lr_schedulers", "identity", "adapter_config"):
                assert ours[name] == theirs[name], name
            assert (
                ours["optimizer_states"][0]["param_groups"]
                == (theirs["optimizer_states"][0]["param_groups"])
            )
            states = [c["optimizer_states"][0]["state"] for c in (ours, theirs)]
            assert states[0].keys() == states[1].keys()
            for key, state in states[1].items():
                for name, value in state.items():
                    torch.testing.assert_close(states[0][key][name], value, atol=1e-5, rtol=1e-3)
            assert ours["callbacks"].keys() == theirs["callbacks"].keys()
            compared += 1
    assert compared >= 10


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
def test_plain_peft_reads_what_was_trained_jointly(both):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    specs, _, folder = both
    ids = torch.arange(20)[None] + 5
    logits = []
    for kind in ("joint", "alone"):
        model = AutoModelForCausalLM.from_pretrained(specs[1].model.path)
        tuned = PeftModel.from_pretrained(model, str(folder / kind / "1" / "adapter"))
        with torch.no_grad():
            logits.append(tuned(ids).logits)
    torch.testing.assert_close(logits[0], logits[1], atol=1e-4, rtol=0)
    with torch.no_grad(), tuned.disable_adapter():
        assert (tuned(ids).logits - logits[1]).abs().max() > 0.1


def test_time_is_shared_and_said(both):
    _, _, folder = both
    import csv

    with (folder / "joint" / "1" / "train_log.csv").open() as file:
        shares = [float(row["share"]) for row in csv.DictReader(file) if row["share"]]
    assert shares == pytest.approx([1 / 5] * 5 + [1 / 4] + [1 / 2] * 3)  # and alone from step 10 on
    times = json.loads((folder / "joint" / "1" / "time_metrics.json").read_text())
    assert 0 < times["share"] < 1
    assert json.loads((folder / "alone" / "1" / "time_metrics.json").read_text())["share"] == 1


@pytest.mark.parametrize("precision", ["bf16-mixed", pytest.param("bf16", marks=pytest.mark.slow)])
def test_half_precision_agrees_up_to_its_own_rounding(spec, tmp_path, precision):
    """Joint is as near to alone as alone in another batch layout would be: bf16 noise."""
    specs = varied(replace(spec, precision=Precision(name=precision)))[:2]
    alone(specs, tmp_path / "alone")
    assert all(e.error is None for e in together(specs, tmp_path / "joint"))
    for index in range(2):
        one, other = (rows(tmp_path / kind / str(index)) for kind in ("joint", "alone"))
        drop = other[0]["valid_loss"] - other[-1]["valid_loss"]
        assert drop > 0.1  # it learned much more than what they differ by
        for mine, theirs in zip(one, other, strict=True):
            assert abs(mine.get("loss", 0) - theirs.get("loss", 0)) < 0.03
        apart = distance(tmp_path / "joint" / str(index), tmp_path / "alone" / str(index))
        assert apart < 0.05


def test_adapters_beyond_what_passes_at_once_form_further_stacks(spec, tmp_path, monkeypatch):
    specs = varied(spec)
    monkeypatch.setitem(table.TOKENS_AT_ONCE, "cpu", 170)
    sizes = []
    made = table.Stack
    monkeypatch.setattr(
        table, "Stack", lambda base, adapters: sizes.append(len(adapters)) or made(base, adapters)
    )
    together(specs, tmp_path / "joint")
    assert sizes[:3] == [2, 2, 1]
    alone(specs[:2], tmp_path / "alone")
    for index in range(2):
        assert_equal_runs(tmp_path / "joint" / str(index), tmp_path / "alone" / str(index))


def test_recomputed_layers_change_nothing(spec, tmp_path):
    spec = replace(spec, lora=Lora(rank=4, dropout=0.2, layers=1))
    specs = [spec, replace(spec, lr=5e-3)]
    together(specs, tmp_path / "kept")
    model = replace(spec.model, gradient_checkpointing=True)
    together([replace(s, model=model) for s in specs], tmp_path / "recomputed")
    for index in range(2):
        assert distance(tmp_path / "kept" / str(index), tmp_path / "recomputed" / str(index)) < 1e-6


def test_every_run_has_loggers_of_its_own(spec, tmp_path):
    loggers = Loggers(chosen={"wandb": WandbLogs(mode="offline"), "tensorboard": TensorBoardLogs()})
    spec = replace(spec, logger=loggers, callbacks=WATCHED)
    together([spec, replace(spec, lr=5e-3, epochs=1)], tmp_path)
    for index, steps in ((0, 10), (1, 5)):
        (logged,) = history(tmp_path / str(index)).values()
        written = {int(row["step"]): row for row in rows(tmp_path / str(index))}
        assert set(range(steps + 1)) <= set(logged)
        assert max(written) == steps
        for step, row in written.items():
            for name in row.keys() - {"step"}:
                assert logged[step][name] == pytest.approx(row[name]), (step, name)
        assert list((tmp_path / str(index) / "tensorboard").iterdir())


def test_data_that_cannot_be_trained_is_the_error_of_all(spec, tmp_path):
    specs = [replace(spec, data=replace(spec.data, train=str(tmp_path / "none.jsonl")))] * 2
    ended = together(specs, tmp_path)
    assert sorted(e.index for e in ended) == [0, 1]
    assert all(isinstance(e.error, GraftlabError) and "none.jsonl" in str(e.error) for e in ended)


def test_adapters_of_other_runs_can_be_continued(spec, tmp_path):
    """`lora.from`: the weights of an earlier run, one jointly trained as well as any."""
    first = replace(spec, lora=Lora(rank=4), epochs=1)
    together([first, replace(first, lr=5e-3)], tmp_path / "first")
    onward = [
        replace(first, lora=Lora(rank=4, from_run=str(tmp_path / "first" / str(i))))
        for i in range(2)
    ]
    together(onward, tmp_path / "joint")
    alone(onward, tmp_path / "alone")
    for index in range(2):
        assert_equal_runs(tmp_path / "joint" / str(index), tmp_path / "alone" / str(index))
    start = load_file(tmp_path / "first" / "0" / "adapter" / "adapter_model.safetensors")
    assert any(t.abs().sum() > 0 for n, t in start.items() if "lora_B" in n)
