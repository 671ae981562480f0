"""What an objective is: named sums over the labelled positions of a batch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from graftlab.types import Batch


@dataclass(kw_only=True, slots=True)
class Objective(ABC):
    """Stateless; `terms` returns sums (not means), of which `loss` is minimised.

    The training module divides by `batch.step_units`, so neither packing nor accumulation
    changes the update.
    """

    @abstractmethod
    def terms(self, policy: Any, batch: Batch) -> dict[str, torch.Tensor]:
        """Summed terms over the labelled positions of `batch`, each a scalar; must hold `loss`."""
