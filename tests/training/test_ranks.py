"""Several processes agree with one, also when one of them has no rows left."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from graftlab.errors import ConfigError, GraftlabError
from graftlab.tasks.train import run
from graftlab.training.trainer import TrainerSpec


def weights(folder: str) -> dict[str, torch.Tensor]:
    return load_file(Path(folder) / "adapter-final" / "adapter_model.safetensors")


@pytest.mark.parametrize("strategy", ["ddp", pytest.param("fsdp2", marks=pytest.mark.slow)])
def test_two_gloo_processes_agree_with_one(spec, tmp_path, strategy):
    alone = run(replace(spec, batch_size=2, run_dir=str(tmp_path / "alone")))
    trainer = TrainerSpec(accelerator="cpu", devices=2, strategy=strategy)
    both = run(replace(spec, trainer=trainer, run_dir=str(tmp_path / "both")))
    assert alone.steps == both.steps == 6  # five rows: the third step leaves one rank without any
    assert both.tokens == alone.tokens + 2  # its idle position, once an epoch
    assert both.trained_tokens == alone.trained_tokens
    assert both.score == pytest.approx(alone.score, abs=1e-5)
    assert both.baseline == pytest.approx(alone.baseline, abs=1e-5)
    ours, theirs = weights(str(tmp_path / "alone")), weights(str(tmp_path / "both"))
    assert ours.keys() == theirs.keys()
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-4, atol=2e-5)
    moved = max(value.abs().max().item() for name, value in ours.items() if "lora_B" in name)
    assert moved > 1e-3


def test_the_time_limit_stops_all_processes_after_the_same_step(spec, tmp_path):
    trainer = TrainerSpec(accelerator="cpu", devices=2, strategy="ddp")
    result = run(replace(spec, trainer=trainer, max_steps=10_000, max_minutes=0.02))
    assert "max_minutes" in result.stopped
    assert 1 <= result.steps < 10_000


def test_a_torchrun_of_ones_own_is_refused(spec, monkeypatch):
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(ConfigError, match="without torchrun"):
        run(replace(spec, trainer=TrainerSpec(accelerator="cpu", devices=2, strategy="ddp")))


def test_a_rank_that_fails_is_an_error_that_names_the_way_on(spec, tmp_path, capfd):
    trainer = TrainerSpec(accelerator="cpu", devices=2, strategy="ddp")
    broken = replace(spec, trainer=trainer, run_dir=str(tmp_path / "broken"))
    bad = tmp_path / "bad.jsonl"
    bad.write_text(json.dumps({"messages": []}) + "\n")
    broken.data.train = str(bad)
    with pytest.raises(GraftlabError, match="ended with code"):
        run(broken)
    assert "rows cannot be trained" in capfd.readouterr().err  # the rank's own message


def test_devices_without_a_strategy_are_refused():
    with pytest.raises(ConfigError, match=r"trainer.devices=2 .*trainer=ddp"):
        TrainerSpec(devices=2)
