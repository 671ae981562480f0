"""`optimizer=adamw`: AdamW, for bf16 weights in a form that loses no small update."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from graftlab.errors import require_range
from graftlab.registry import choice
from graftlab.training.optimizers.base import Named, OptimizerSpec

if TYPE_CHECKING:
    import torch


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

    def __post_init__(self) -> None:
        OptimizerSpec.__post_init__(self)
        require_range("optimizer.weight_decay", self.weight_decay, least=0)
        require_range("optimizer.beta1", self.beta1, least=0, most=0.99999)
        require_range("optimizer.beta2", self.beta2, least=0, most=0.999999)
        require_range("optimizer.eps", self.eps, above=0)

    def build(self, named: Named, *, lr: float) -> torch.optim.Optimizer:
        import torch

        from graftlab.training.split import SplitAdamW

        matrices = [parameter for _, parameter in named if parameter.ndim >= 2]
        vectors = [parameter for _, parameter in named if parameter.ndim < 2]
        groups = [
            {"params": params, "weight_decay": decay}
            for params, decay in ((matrices, self.weight_decay), (vectors, 0.0))
            if params
        ]
        betas = (self.beta1, self.beta2)
        if any(parameter.dtype == torch.bfloat16 for _, parameter in named):
            return SplitAdamW(groups, lr=lr, betas=betas, eps=self.eps)
        return torch.optim.AdamW(groups, lr=lr, betas=betas, eps=self.eps)
