"""Apple's model with the module names that PEFT needs: a thin wrapper around tamm's.

tamm computes q, k and v in one fused product and keeps adapters beside it; PEFT puts its LoRA on
plain linear layers. So here the fused layer is seen as three that share its memory:

    from peft import PeftModel
    from graftlab.apple.exports.plain import PlainAFM

    model = PeftModel.from_pretrained(PlainAFM(config.create_model()), "EXPORT")
    logits = model(ids).logits
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from graftlab.apple.targets import ATTENTION


class PlainAFM(nn.Module):
    """tamm's `AFMTextV7` without adapters of its own, and q, k, v as layers of their own.

    Takes over `model` and changes it: tamm's adapters are taken out, so that their weights play no
    part, and fused projections are split into views. No weight is copied.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        _replace(model)
        self.model = model

    def forward(self, input_ids: Tensor, **options: Any) -> Any:
        """As tamm's model: ids (B, T) to an output whose `logits` are (B, T, V)."""
        return self.model(input_ids, **options)


class SplitProjections(nn.Module):
    """q, k and v as three linear layers: rows of one weight (q + k + v, hidden)."""

    def __init__(self, fused: nn.Linear, widths: list[int]) -> None:
        super().__init__()
        parts = torch.split(fused.weight.detach(), widths)
        for name, rows in zip(ATTENTION[:3], parts, strict=True):
            layer = nn.Linear(rows.shape[1], rows.shape[0], bias=False, device="meta")
            layer.weight = nn.Parameter(rows, requires_grad=False)
            self.add_module(name, layer)

    def forward(self, hidden: Tensor) -> tuple[Tensor, ...]:
        return tuple(layer(hidden) for layer in self.children())


def _replace(model: nn.Module) -> None:
    """Put every adapted layer's own layer in its place, and split what is fused."""
    for module in model.children():
        _replace(module)
    for name, module in list(model.named_children()):
        plain: Any = getattr(module, "wrapped", module)
        if isinstance(fused := getattr(plain, "fused_linear", None), nn.Linear):
            plain = SplitProjections(fused, list(plain.output_dims))
        if plain is not module:
            setattr(model, name, plain)
