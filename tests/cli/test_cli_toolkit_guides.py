"""Every command of two guides to the toolkit, with only the module's name replaced."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import pytest

from composing import composed, flat
from graftlab.apple.toolkit.answer import translated
from graftlab.apple.toolkit.read import read

if TYPE_CHECKING:
    from pathlib import Path

TRAIN = """python -m examples.train_adapter \
  --train-data train.jsonl \
  --eval-data eval.jsonl \
  --epochs 5 \
  --learning-rate 1e-3 \
  --batch-size 4 \
  --pack-sequences \
  --max-sequence-length 4095 \
  --precision bf16-mixed \
  --checkpoint-dir ./checkpoints/ \
  --checkpoint-frequency 1"""
GENERATE = """python -m examples.generate \
  --prompt eval_prompts.jsonl \
  --checkpoint ./checkpoints/adapter-epoch3.pt \
  --max-new-tokens 256 \
  --temperature 0.7"""
EXPORT = """python -m export.export_fmadapter \
  --adapter-name ficino_music \
  --checkpoint ./checkpoints/adapter-best.pt \
  --draft-checkpoint ./checkpoints/draft-model-final.pt \
  --output-dir ./exports/"""
DRAFT = """python -m examples.train_draft_model \
  --checkpoint ./checkpoints/adapter-final.pt \
  --train-data train.jsonl \
  --eval-data eval.jsonl \
  --epochs 5 \
  --learning-rate 1e-3 \
  --batch-size 4 \
  --checkpoint-dir ./checkpoints/"""


@pytest.fixture(autouse=True)
def guide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The guide's folder, after both trainings."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GRAFTLAB_AFM_ASSETS", "assets")
    for name in (
        *("adapter/run.yaml", "adapter/adapter/run.yaml", "draft-model/adapter/run.yaml"),
        *("adapter/checkpoints/adapter-epoch3.pt", "adapter/checkpoints/adapter-final.pt"),
    ):
        (tmp_path / "checkpoints" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "checkpoints" / name).touch()


def words(command: str) -> list[str]:
    """The graftlab words of a command of the guide."""
    python, module, script, *flags = shlex.split(command)
    assert (python, module) == ("python", "-m")
    return translated(read([script, *flags]))


def test_the_training_line_is_the_experiment() -> None:
    """But for what the line cannot say: a profile for `plan`, and how samples are drawn."""
    verb, *typed = words(TRAIN)
    assert "hydra.run.dir=checkpoints/adapter" in typed
    typed.remove("hydra.run.dir=checkpoints/adapter")
    line = flat(composed(verb, *typed))
    files = ("data.train=train.jsonl", "data.valid=eval.jsonl")
    ours = flat(composed("train", "experiment=ficino", "model=afm-3b", "model.path=assets", *files))
    differing = {key for key in line.keys() | ours.keys() if line.get(key) != ours.get(key)}
    assert {key.rpartition(".")[0] for key in differing} == {"data.profile", "generation"}
    assert ours["lora.rank"] == 32
    assert ours["packing.max_length"] == 4095


def test_the_generate_line_draws_as_the_experiment_does() -> None:
    verb, *typed = words(GENERATE)
    line = composed(verb, *typed)
    files = ("data.train=train.jsonl", "data.valid=eval.jsonl", "model.path=assets")
    assert line["generation"] == composed("train", "experiment=ficino", *files)["generation"]
    assert line["adapter"] == "checkpoints/adapter/checkpoints/adapter-epoch3.pt"
    assert (line["prompts"], line["compare"]) == ("eval_prompts.jsonl", False)


def test_the_draft_line_distils() -> None:
    verb, *typed = words(DRAFT)
    line = flat(composed(verb, *typed))
    assert line["objective.teacher"] == "checkpoints/adapter/checkpoints/adapter-final.pt"
    assert line["objective.divergence"] == "inverse"
    assert (line["schedule.shape"], line["schedule.warmup_epochs"]) == ("constant", 1)
    assert (line["epochs"], line["lr"], line["batch_size"]) == (5, 1e-3, 4)
    assert line["packing.strategy"] == "none"


def test_the_export_line_exports_the_best_with_its_draft() -> None:
    verb, *typed = words(EXPORT)
    line = flat(composed(verb, *typed))
    assert line["adapter"] == "checkpoints/adapter"
    assert line["target.draft"] == "checkpoints/draft-model"
    assert line["name"] == "ficino_music"


def test_the_toolkit_s_defaults() -> None:
    """What is not given means what it means there, be it said or ours by default."""
    verb, *typed = words("python -m examples.train_adapter --train-data train.jsonl")
    line = flat(composed(verb, *typed))
    assert {key: line[key] for key in DEFAULTS} == DEFAULTS


DEFAULTS = {
    "epochs": 2,
    "lr": 1e-3,
    "schedule.shape": "cosine",
    "schedule.warmup_epochs": 1,
    "schedule.warmup_ratio": None,
    "batch_size": 4,
    "accumulate": 1,
    "model.gradient_checkpointing": True,  # the one that differs: see conf/model/afm-3b.yaml
    "precision.name": "bf16-mixed",
    "optimizer.weight_decay": 1e-2,
    "optimizer.clip_norm": 1.0,
    "packing.strategy": "none",
    "packing.max_length": 4096,
    "checkpoint.every_epochs": 1,
    "checkpoint.keep": 2,
    "lora.rank": 32,
    "lora.alpha": 16,
    "data.valid": None,
    "data.valid_fraction": 0,
}
