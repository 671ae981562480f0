"""Every choice of `lora=` trains on the base that ships with graftlab."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from safetensors.torch import load_file

from graftlab.cli.compose import build, compose
from graftlab.files.paths import conf_dir
from graftlab.training.start import run
from slower import mostly_slow

OPTIONS = sorted(file.stem for file in (conf_dir() / "lora").glob("*.yaml"))


@pytest.mark.parametrize("option", mostly_slow(OPTIONS, "afm-r32", "dora", "none", "rslora"))
def test_every_option_trains_some_steps(option: str, afm_folder: Path, tmp_path: Path) -> None:
    words = [
        f"lora={option}",
        "max_steps=3",
        "data.limit=12",
        "packing.max_length=512",
        "data.valid_fraction=0",
        "callbacks.samples.prompts=0",
        "logger=none",
        "compile=off",
        f"run_dir={tmp_path / 'run'}",
    ]
    if option == "afm-r32":
        words += ["model=afm-3b", f"model.path={afm_folder}", "model.template=chatml"]
    if option == "full":
        words += ["lr=1e-4"]
    run(build(compose("train", words)).training())
    with (tmp_path / "run" / "train_log.csv").open() as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file) if row["loss"]]
    assert len(losses) == 3
    assert losses[-1] < losses[0]
    for file in (tmp_path / "run" / "adapter").glob("*.safetensors"):
        tensors = load_file(file)
        assert tensors
        assert all(tensor.isfinite().all() for tensor in tensors.values())
