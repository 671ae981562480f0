"""What every optimizer choice shares."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

from graftlab.errors import require_range
from graftlab.registry import group

if TYPE_CHECKING:
    import torch

Named = list[tuple[str, "torch.nn.Parameter"]]


@group("optimizer")
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
