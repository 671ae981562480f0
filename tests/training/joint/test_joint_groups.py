"""Who may train with whom, said without loading anything; and whether it is worth it here."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest

from graftlab.adapters.lora import Lora
from graftlab.apple.model import AFMModel
from graftlab.errors import ConfigError
from graftlab.tracking.folder import RunFolder
from graftlab.training.joint import measure as measuring
from graftlab.training.joint.groups import FREE, JointJob, group, unfit
from graftlab.training.joint.measure import Timing, faster_together
from graftlab.training.optimizers.adamw import AdamW
from graftlab.training.precision import Precision
from graftlab.training.schedule import Schedule
from graftlab.training.trainer import TrainerSpec
from joint_runs import varied


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"lora": Lora(dora=True)}, "lora.dora"),
        ({"lora": Lora(modules_to_save=["lm_head"])}, "lora.modules_to_save"),
        ({"lora": Lora(init="eva")}, "lora.init=eva"),
        ({"lora": Lora(trainable_tokens=["!"])}, "lora.trainable_tokens"),
        ({"lora": Lora(targets=["q_proj", "lm_head"])}, "lm_head lies outside"),
        ({"lora": Lora(targets=["embed_tokens"])}, "embed_tokens lies outside"),
        ({"trainer": TrainerSpec(strategy="ddp", devices=2)}, "trainer.strategy=ddp"),
        ({"precision": Precision(name="fp16-mixed")}, "fp16-mixed"),
        ({"compile": "on"}, "compile=on"),
        ({"model": AFMModel(path="assets")}, "adapters of tamm are not stacked"),
    ],
)
def test_other_kinds_are_said_to_be_unfit(spec, change, reason):
    specs = [spec, replace(spec, **change), spec]
    reasons = unfit(specs)
    assert list(reasons) == [1]
    assert reason in reasons[1]
    assert group(specs) == [[0, 2]]


def test_what_may_differ_shares_a_group(spec):
    assert unfit(varied(spec)) == {}
    assert group(varied(spec)) == [[0, 1, 2, 3, 4]]
    others = [
        replace(
            spec, trainer=TrainerSpec(log_every=5), compile="auto", name="b", run_dir="elsewhere"
        ),
        replace(spec, optimizer=AdamW(beta2=0.95), schedule=Schedule(shape="wsd"), max_minutes=5.0),
    ]
    assert group([spec, *others]) == [[0, 1, 2]]


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"batch_size": 2},
        {"accumulate": 2},
        {"precision": Precision(name="bf16-mixed")},
        {"trainer": TrainerSpec(threads=1)},
    ],
)
def test_what_must_be_equal_parts_groups(spec, change):
    other = replace(spec, **change)
    assert group([spec, other, replace(other, lr=1.0)]) == [[0], [1, 2]]


def test_data_and_base_part_groups(spec):
    data = replace(spec, data=replace(spec.data, train="other.jsonl"))
    packing = replace(spec, packing=replace(spec.packing, max_length=64))
    model = replace(spec, model=replace(spec.model, path="other"))
    assert group([spec, data, packing, model]) == [[0], [1], [2], [3]]


def test_every_key_is_either_free_or_shared(spec):
    """A new key of the run parts groups unless somebody decides otherwise."""
    import dataclasses

    names = {field.name for field in dataclasses.fields(spec)}
    assert set(FREE) < names
    assert names - set(FREE) == {
        "model", "data", "objective", "precision", "packing", "trainer",
        "seed", "batch_size", "accumulate", "date",
    }  # fmt: skip


def test_sorting_loads_nothing_heavy():
    heavy = ["torch", "lightning", "transformers", "peft", "numpy"]
    program = (
        "import sys, graftlab.training.joint.groups; "
        f"print([m for m in {heavy} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def jobs(specs, tmp_path):
    return [JointJob(spec=s, folder=RunFolder(tmp_path / str(i))) for i, s in enumerate(specs)]


def test_measuring_trains_nothing_and_leaves_the_folders_alone(spec, tmp_path):
    together, why = faster_together(jobs(varied(spec), tmp_path / "runs"))
    assert isinstance(together, bool)
    assert "5 adapters on rows of" in why
    assert "times as fast" in why
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(("alone", "joint", "choice"), [(1.0, 0.5, True), (1.0, 0.99, False)])
def test_joint_must_win_clearly(spec, tmp_path, monkeypatch, alone, joint, choice):
    timing = Timing(alone=alone, joint=joint, adapters=4, tokens=1000)
    monkeypatch.setattr(measuring, "measure", lambda *_, **__: timing)
    assert faster_together(jobs(varied(spec), tmp_path))[0] is choice


def test_runs_that_alone_would_be_compiled_are_compared_as_such(spec, tmp_path, monkeypatch):
    """A base of 0.1M parameters gains 25 us a token by compiled layers."""
    timing = Timing(alone=0.1, joint=0.08, adapters=4, tokens=1000)
    monkeypatch.setattr(measuring, "measure", lambda *_, **__: timing)
    monkeypatch.setattr(measuring, "whether_to_compile", lambda *_: (True, "long"))
    together, why = faster_together(jobs(varied(spec), tmp_path))
    assert not together
    assert "would be compiled" in why


def test_several_devices_speak_for_runs_of_their_own(spec, tmp_path, monkeypatch):
    timing = Timing(alone=1.0, joint=0.6, adapters=4, tokens=1000)
    monkeypatch.setattr(measuring, "measure", lambda *_, **__: timing)
    assert faster_together(jobs(varied(spec), tmp_path))[0]
    together, why = faster_together(jobs(varied(spec), tmp_path), devices=2)
    assert not together
    assert "on each of 2 devices" in why


def test_a_single_run_and_missing_data(spec, tmp_path):
    assert faster_together(jobs([spec], tmp_path)) == (
        False, "a single run has nobody to train with",
    )  # fmt: skip
    gone = replace(spec, data=replace(spec.data, train=str(tmp_path / "none.jsonl")))
    with pytest.raises(ConfigError, match="does not exist"):
        faster_together(jobs([gone, gone], tmp_path))
