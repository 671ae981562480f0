"""Optimizers: AdamW, or any class of torch.optim by name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from graftlab.errors import ConfigError, did_you_mean, require_range

if TYPE_CHECKING:
    import torch

UNSUITED = {
    "LBFGS": "evaluates the loss several times a step",
    "SparseAdam": "takes sparse gradients only",
    "Muon": "takes matrices only, and an adapter may have vectors",
}
"""Optimizers of torch.optim that cannot train an adapter here, and why."""

Named = list[tuple[str, "torch.nn.Parameter"]]


@dataclass(kw_only=True, slots=True)
class OptimizerSpec(ABC):
    """What every optimizer choice shares; the learning rate is the run's `lr`."""

    clip_norm: float | None = 1.0
    """Clip the gradient to this global L2 norm; null to leave it alone."""

    def __post_init__(self) -> None:
        require_range("optimizer.clip_norm", self.clip_norm, above=0)

    @abstractmethod
    def build(self, named: Named, *, lr: float) -> torch.optim.Optimizer:
        """The optimizer over the adapter's named parameters."""


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


@dataclass(kw_only=True, slots=True)
class CustomOptimizer(OptimizerSpec):
    """`optimizer=custom optimizer.target=torch.optim.Adafactor optimizer.arguments={...}`."""

    target: str = "torch.optim.SGD"
    """Dotted name of an optimizer class; only names under torch.optim are allowed."""
    arguments: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments, checked against the class's signature."""

    def __post_init__(self) -> None:
        OptimizerSpec.__post_init__(self)
        if not self.target.startswith("torch.optim."):
            raise ConfigError(
                f"optimizer.target={self.target}: only classes under torch.optim are allowed."
            )

    def optimizer_class(self) -> type[torch.optim.Optimizer]:
        """The class named by `target`. Raises ConfigError for a wrong name or argument."""
        import inspect

        import torch

        name = self.target.removeprefix("torch.optim.")
        found = getattr(torch.optim, name, None)
        if not (isinstance(found, type) and issubclass(found, torch.optim.Optimizer)):
            hint = did_you_mean(name, [n for n in dir(torch.optim) if n[0].isupper()])
            raise ConfigError(
                f"optimizer.target={self.target} is no optimizer of torch.optim.{hint}"
            )
        if name in UNSUITED:
            raise ConfigError(f"optimizer.target={self.target} {UNSUITED[name]}: use another.")
        known = set(inspect.signature(found).parameters) - {"params", "lr"}
        for key in self.arguments:
            if key not in known:
                raise ConfigError(
                    f"optimizer.arguments.{key}: {name} takes no such argument."
                    + did_you_mean(key, known)
                )
        return found

    def build(self, named: Named, *, lr: float) -> torch.optim.Optimizer:
        import torch

        if any(parameter.dtype == torch.bfloat16 for _, parameter in named):
            raise ConfigError(
                "precision=bf16 trains bf16 weights, which only optimizer=adamw does without "
                "losing small updates: use optimizer=adamw, or precision=bf16-mixed."
            )
        factory: Any = self.optimizer_class()
        optimizer: torch.optim.Optimizer = factory([p for _, p in named], lr=lr, **self.arguments)
        return optimizer
