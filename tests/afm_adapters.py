"""Adapters to be exported: random ones from dimensions alone, and runs as training leaves them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from afm_assets import make_assets
from graftlab.adapters.attach import attach, load_adapter
from graftlab.adapters.lora import Lora
from graftlab.apple.checkpoints import write
from graftlab.apple.exports.layout import Layout
from graftlab.registry import dump

if TYPE_CHECKING:
    import torch
    from torch import nn

    from graftlab.adapters.base import Adapter
    from graftlab.models.base import ModelSpec
    from graftlab.models.quantization.base import Quantization

MINI = Layout(hidden=64, layers=4, reuse=2, heads=4, kv_heads=2, feed_forward=208, rank=4)
REAL = Layout()
VOCABULARY = 120


def random_state(
    layout: Layout = MINI, *, seed: int = 1, dtype: torch.dtype | None = None
) -> dict[str, torch.Tensor]:
    """Weights as after training: A as tamm draws it, B of a like size, all different."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    state = {}
    for slot in layout.slots():
        size = 0.3 if slot.is_b else slot.shape[0] ** -0.5
        values = torch.randn(slot.shape, generator=generator) * size
        state[slot.name] = values.to(dtype or torch.float32)
    return state


def tamm_model(layout: Layout = MINI, *, alpha: float = 2.0, device: str = "cpu") -> nn.Module:
    """tamm's model of these dimensions with an adapter on all linears, random weights, eval."""
    import torch
    from tamm.adapters import LoRAModelAdapter
    from tamm.ao.arch_optimizers.kv_quant import KVQuantArchOptimizer
    from tamm.models.afm_text.afm_text_v7 import AFMTextV7

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        config = AFMTextV7.Config(**dimensions(layout), device=device)
        config.adapters = {"base_adapter": LoRAModelAdapter(rank=layout.rank, alpha=alpha)}
        config.arch_optimizers = {"kv_quant": KVQuantArchOptimizer()}
        model: nn.Module = config.create_model()
        for name, parameter in model.named_parameters():
            if name.endswith("norm.weight") and device == "cpu":
                # As drawn they are all ones, and order among ones cannot be wrong.
                torch.nn.init.uniform_(parameter, 0.5, 1.5)
        for name, buffer in model.named_buffers():
            if name.endswith(".range"):
                buffer.mul_(4)  # keys and values of a random model exceed what it starts with
    return model.eval().requires_grad_(False)


def dimensions(layout: Layout) -> dict[str, Any]:
    """tamm's arguments; the vocabulary is small where the model is."""
    return {
        "vocab_size": VOCABULARY if layout.hidden < 2048 else 153600,
        "hidden_dim": layout.hidden,
        "num_layers": layout.layers,
        "num_kv_reuse_layers": layout.reuse,
        "num_heads": layout.heads,
        "num_kv_heads": layout.kv_heads,
    }


def afm_run(folder: Path, **lora: Any) -> Path:
    """A run on a miniature of Apple's model as training leaves it, a toolkit checkpoint in it."""
    from graftlab.apple.model import AFMModel

    model = AFMModel(path=str(make_assets(folder / "assets")))
    keys = {"rank": 4, "alpha": 2.0, "targets": "all-linear", **lora}
    adapter = _trained(model, Lora(**keys), folder)
    (folder / "run" / "run.yaml").write_text(
        yaml.safe_dump({"model": dump(model), "lora": dump(Lora(**keys))}), encoding="utf-8"
    )
    write(adapter.state_dict(), folder / "run" / "checkpoints" / "adapter-final.pt")
    return folder / "run"


def hf_run(
    folder: Path,
    kind: str = "qwen2",
    *,
    config: dict[str, Any] | None = None,
    quantization: Quantization | None = None,
    **lora: Any,
) -> Path:
    """A run on a Hugging Face miniature, with fields of its config, as training leaves it."""
    from graftlab.models.hf import HFModel
    from miniatures import miniature

    stored = {"quantization": quantization} if quantization else {}
    model = HFModel(path=str(miniature(kind, folder / kind, **(config or {}))), **stored)
    return run_on(model, folder, **lora)


def run_on(model: ModelSpec, folder: Path, **lora: Any) -> Path:
    """A run on a base as training leaves it, in `folder/run`."""
    _trained(model, Lora(**{"rank": 4, **lora}), folder)
    model.load_tokenizer().save(folder / "run" / "adapter")
    return folder / "run"


def _trained(model: ModelSpec, lora: Lora, folder: Path) -> Adapter:
    import torch

    from graftlab.models.cache import acquire

    with acquire(model, dtype=torch.float32, device=torch.device("cpu")) as base:
        adapter = attach(base, lora, seed=1, dtype=torch.float32)
        generator = torch.Generator().manual_seed(2)
        with torch.no_grad():
            for _, parameter in adapter.named_parameters():
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
        adapter.save(folder / "run" / "adapter")
        checkpoint = {
            "adapter": adapter.state_dict(),
            "adapter_config": adapter.config_dict(),
            "run": {"model": dump(model)},
        }
        (folder / "run" / "checkpoints").mkdir()
        torch.save(checkpoint, folder / "run" / "checkpoints" / "last.ckpt")
    file = folder / "run" / "adapter" / "run.yaml"
    file.write_text(yaml.safe_dump({"model": dump(model)}), encoding="utf-8")
    return adapter


def logits(run: Path, ids: torch.Tensor) -> torch.Tensor:
    """What the run's base answers with its adapter, in graftlab: (B, T) -> (B, T, V)."""
    import torch

    from graftlab.adapters.artifact import find_artifact
    from graftlab.models.base import ModelSpec
    from graftlab.models.cache import acquire
    from graftlab.registry import restore
    from graftlab.types import Batch

    source = find_artifact(str(run)).require_adapter()
    model = restore(ModelSpec, source.run()["model"])
    rows, length = ids.shape
    batch = Batch(
        input_ids=ids.reshape(1, -1),
        labels=torch.zeros_like(ids).reshape(1, -1),
        positions=torch.arange(length).repeat(rows)[None],
        boundaries=torch.arange(0, ids.numel() + 1, length, dtype=torch.int32),
        step_units=ids.numel(),
    )
    with acquire(model, dtype=torch.float32, device=torch.device("cpu")) as base, torch.no_grad():
        load_adapter(base, source)
        with base.evaluating():
            answer: torch.Tensor = base.logits(base.hidden(batch)[0])
        return answer.view(rows, length, -1).clone()
