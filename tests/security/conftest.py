"""Folders to attack from, and adapters to poison."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from graftlab.adapters.attach import attach
from hostile import Attack
from kept_logging import kept_logging


@pytest.fixture(scope="session")
def run_template(
    tmp_path_factory: pytest.TempPathFactory, qwen2_folder: Path
) -> Callable[[Path], Path]:
    """`run_template(folder)` copies the adapter folder of a run with its tokenizer there."""
    import torch

    from graftlab.adapters.lora import Lora
    from graftlab.models.hf import HFModel
    from graftlab.registry import dump

    adapter = tmp_path_factory.mktemp("trained") / "adapter"
    spec = HFModel(path=str(qwen2_folder))
    base = spec.load(dtype=torch.float32, device=torch.device("cpu"))
    attach(base, Lora(rank=2), seed=0, dtype=torch.float32).save(adapter)
    spec.load_tokenizer().save(adapter)
    (adapter / "run.yaml").write_text(yaml.safe_dump({"model": dump(spec)}), encoding="utf-8")

    def copy(folder: Path) -> Path:
        shutil.copytree(adapter, folder)
        return folder

    return copy


@pytest.fixture
def attack(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    qwen2_folder: Path,
) -> Iterator[Attack]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    with kept_logging():
        yield Attack(tmp_path, qwen2_folder, tmp_path / "marker", capsys)
