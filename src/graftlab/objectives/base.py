"""What an objective is: named sums over the labelled positions of a batch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from graftlab.registry import group

if TYPE_CHECKING:
    import torch

    from graftlab.types import Batch


@group("objective")
@dataclass(kw_only=True, slots=True)
class Objective(ABC):
    """Stateless; `terms` returns sums (not means), of which `loss` is minimised.

    The training module divides by `batch.step_units`, so neither packing nor accumulation
    changes the update.
    """

    unit: ClassVar[str] = "label"
    """What a mean is taken over: "label" (as each is weighted) or "document" (a pair is one)."""

    @abstractmethod
    def terms(self, policy: Any, batch: Batch) -> dict[str, torch.Tensor]:
        """Summed terms over the labelled positions of `batch`, each a scalar; must hold `loss`."""

    def validation(self, policy: Any, batch: Batch) -> dict[str, torch.Tensor]:
        """Sums over a held-out batch; must hold `loss`, by which runs are judged.

        Each is a scalar, or has a value for every label (n,), which is summed by who asks: a `loss`
        of that shape gets an interval over documents.

        Cross-entropy in nats, whatever is trained, so that runs with different objectives can be
        compared, unless the objective has a better judge.
        """
        return {"loss": policy.nll(batch)}

    def metrics(self, sums: Mapping[str, float], units: float) -> dict[str, float]:
        """What is reported of a whole set, from its sums and its number of `unit`s.

        `loss` is the validation loss; every other is logged as `valid/NAME`.
        """
        return {name: total / units for name, total in sums.items()}

    def asks(self) -> str | None:
        """The run, adapter or model folder of the teacher in `policy.teacher`; None without one."""
        return None

    def redraws(self) -> bool:
        """Whether the data's answers are replaced by the teacher's own before training."""
        return False
