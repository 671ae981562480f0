"""Runs on a GGUF file: resumed, joint, continued, planned and exported as on any other base."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from gguf_files import write_gguf
from graftlab.adapters.artifact import find_artifact
from graftlab.adapters.attach import load_trained
from graftlab.adapters.lora import Lora
from graftlab.errors import ConfigError, ModelError, Paused
from graftlab.exports.merged import Merged
from graftlab.exports.mlx import MLX
from graftlab.exports.peft import Peft
from graftlab.exports.source import load
from graftlab.models.gguf import GGUFModel
from graftlab.planning.estimate import estimate_run
from graftlab.training.observer import Observer
from graftlab.training.spec import TrainSpec
from graftlab.training.start import run
from graftlab.verbs.plan import PlanSpec
from joint_runs import assert_equal_runs, together
from miniatures import miniature

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def file(root: Path) -> Path:
    return write_gguf(root / "base", root / "base.gguf", kind="Q8_0")


@pytest.fixture
def packed(spec: TrainSpec, file: Path) -> TrainSpec:
    return replace(spec, model=GGUFModel(path=str(file)))


class PausesAt(Observer):
    def __init__(self, step: int) -> None:
        self.rungs = {step}

    def verdict(self, step: int) -> str:
        return "enough for a test"


def test_a_run_that_was_stopped_goes_on_as_if_it_had_not(packed, tmp_path) -> None:
    whole = replace(packed, run_dir=str(tmp_path / "whole"))
    result = run(whole)
    assert result.score is not None
    assert result.baseline is not None
    assert result.score < result.baseline
    with pytest.raises(Paused):
        run(packed, observer=PausesAt(4))
    run(replace(packed, resume="auto"))
    weights = "adapter-final/adapter_model.safetensors"
    assert (tmp_path / "whole" / weights).read_bytes() == (tmp_path / "run" / weights).read_bytes()


def test_it_learns_what_the_unpacked_base_learns(packed, tmp_path) -> None:
    run(packed)
    plain = replace(packed.model, dequantize=True)
    run(replace(packed, model=plain, run_dir=str(tmp_path / "plain")))
    assert_equal_runs(tmp_path / "run", tmp_path / "plain")


def test_jobs_share_it_jointly(packed, tmp_path) -> None:
    specs = [replace(packed, lr=lr, lora=Lora(rank=rank)) for lr, rank in ((1e-3, 4), (3e-3, 8))]
    together(specs, tmp_path / "joint")
    for number, spec in enumerate(specs):
        run(replace(spec, run_dir=str(tmp_path / f"solo-{number}")))
        assert_equal_runs(tmp_path / "joint" / str(number), tmp_path / f"solo-{number}")


def test_an_adapter_is_bound_to_its_file(packed, file, root, tmp_path) -> None:
    run(packed)
    trained = find_artifact(packed.run_dir).on_base(advice="none is needed")
    assert isinstance(trained.model, GGUFModel)
    assert trained.load_tokenizer().stop == "<|im_end|>"
    base = trained.model.load(dtype=torch.float32, device=CPU)
    assert load_trained(base, trained, dtype=torch.float32) is not None
    miniature("qwen2", root / "another", seed=5)
    other = GGUFModel(path=str(write_gguf(root / "another", root / "another.gguf", kind="Q8_0")))
    on_other = find_artifact(packed.run_dir).on_base(other, advice="none is needed")
    with pytest.raises(ModelError, match="another base"):
        load_trained(other.load(dtype=torch.float32, device=CPU), on_other, dtype=torch.float32)
    lora = Lora(from_run=packed.run_dir)
    again = {"lora": lora, "run_dir": str(tmp_path / "again")}
    with pytest.raises(ConfigError, match="another base"):
        run(replace(packed, model=other, **again))
    run(replace(packed, **again))


def test_a_plan_counts_it_by_its_header(packed) -> None:
    fields = {name: getattr(packed, name) for name in packed.__dataclass_fields__}
    fields.pop("resume")
    plan: Any = estimate_run(PlanSpec(**fields))
    assert plan.shape.parameters == sum(
        parameter.numel()
        for parameter in packed.model.load(dtype=torch.float32, device=CPU).model.parameters()
    )


def test_exports_say_on_which_file_it_was_trained(packed, tmp_path) -> None:
    run(packed)
    adapter = load(packed.run_dir)
    notes = Peft().check(adapter)
    assert any("trained on base.gguf, a GGUF file" in note for note in notes)
    folder = tmp_path / "peft"
    folder.mkdir()
    Peft().write(adapter, folder)
    Peft().verify(adapter, folder)
    named = json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"]
    assert named == str(packed.model.file().path)
    for target, name in ((Merged(), "merged"), (MLX(), "mlx")):
        with pytest.raises(ModelError, match=f"base.gguf, a GGUF file, and target={name}"):
            target.check(adapter)
