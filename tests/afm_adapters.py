"""AFM adapters without a base: dimensions of a miniature, random weights, and tamm's own model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from graftlab.exports.layout import Layout

if TYPE_CHECKING:
    import torch
    from torch import nn

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
