"""`optimizer=custom`: any optimizer class of torch.optim by name."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from graftlab.errors import ConfigError, did_you_mean
from graftlab.registry import choice
from graftlab.training.optimizers.base import Named, OptimizerSpec

if TYPE_CHECKING:
    import torch

UNSUITED = {
    "LBFGS": "evaluates the loss several times a step",
    "SparseAdam": "takes sparse gradients only",
    "Muon": "takes matrices only, and an adapter may have vectors",
}
"""Optimizers of torch.optim that cannot train an adapter here, and why."""


@choice("custom")
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
