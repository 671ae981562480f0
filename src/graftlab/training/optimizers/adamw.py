"""`optimizer=adamw`: AdamW, for bf16 weights in a form that loses no small update."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from graftlab.errors import require_range
from graftlab.registry import choice
from graftlab.training.optimizers.base import Named, OptimizerSpec

if TYPE_CHECKING:
    import torch


UP = (".lora_B.weight", ".b_transpose")
"""How the names of the matrices B of an adapter end, by the library it is of."""


@choice("adamw")
@dataclass(kw_only=True, slots=True)
class AdamW(OptimizerSpec):
    """`optimizer=adamw` (arXiv 1711.05101); bf16 parameters get its exact split form."""

    weight_decay: float = 0.01
    """Decoupled weight decay of matrices (DoRA's magnitudes are left alone)."""
    beta1: float = 0.9
    """Decay of the first moment."""
    beta2: float = 0.999
    """Decay of the second moment."""
    eps: float = 1e-8
    """Added to the denominator."""
    lora_plus_ratio: float | None = None
    """LoRA+ (arXiv 2402.12354): the matrices B learn at lr x this ratio; null for lr."""

    def __post_init__(self) -> None:
        OptimizerSpec.__post_init__(self)
        require_range("optimizer.weight_decay", self.weight_decay, least=0)
        require_range("optimizer.beta1", self.beta1, least=0, most=0.99999)
        require_range("optimizer.beta2", self.beta2, least=0, most=0.999999)
        require_range("optimizer.eps", self.eps, above=0)
        require_range("optimizer.lora_plus_ratio", self.lora_plus_ratio, above=0)

    def build(self, named: Named, *, lr: float) -> torch.optim.Optimizer:
        import torch

        from graftlab.training.split import SplitAdamW

        ratio = self.lora_plus_ratio
        fast = [p for name, p in named if ratio is not None and name.endswith(UP)]
        taken = {id(parameter) for parameter in fast}
        matrices = [p for _, p in named if p.ndim >= 2 and id(p) not in taken]
        vectors = [parameter for _, parameter in named if parameter.ndim < 2]
        groups = [
            {"params": params, "weight_decay": decay, "lr": rate}
            for params, decay, rate in (
                (matrices, self.weight_decay, lr),
                (fast, self.weight_decay, lr * (ratio or 1.0)),
                (vectors, 0.0, lr),
            )
            if params
        ]
        betas = (self.beta1, self.beta2)
        if any(parameter.dtype == torch.bfloat16 for _, parameter in named):
            return SplitAdamW(groups, lr=lr, betas=betas, eps=self.eps)
        return torch.optim.AdamW(groups, lr=lr, betas=betas, eps=self.eps)
