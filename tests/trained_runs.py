"""Run folders with an adapter that says something, as training leaves them, without training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import yaml

from graftlab.adapters.lora import Lora
from graftlab.adapters.peft import attach
from graftlab.models.cache import acquire
from graftlab.models.hf import HFModel
from graftlab.registry import dump


def trained_run(
    folder: Path, model_folder: Path, *, data: dict[str, Any] | None = None, seed: int = 2
) -> Path:
    """Adapter, tokenizer and run.yaml in `folder/adapter`, and a checkpoint of the same."""
    model = HFModel(path=str(model_folder))
    config = {"model": dump(model), "data": data or {}}
    with acquire(model, dtype=torch.float32, device=torch.device("cpu")) as base:
        adapter = attach(base, Lora(rank=4), seed=1, dtype=torch.float32)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for _, parameter in adapter.named_parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
        adapter.save(folder / "adapter")
        checkpoint = {
            "adapter": adapter.state_dict(),
            "adapter_config": adapter.config_dict(),
            "run": config,
            "identity": {"base": base.fingerprint, "data": "x"},
        }
        torch.save(checkpoint, folder / "step-000001.ckpt")
    model.load_tokenizer().save(folder / "adapter")
    (folder / "adapter" / "run.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    return folder
