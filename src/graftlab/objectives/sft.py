"""`objective=sft`: cross-entropy over the assistant's tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from graftlab.objectives.base import Objective
from graftlab.registry import choice

if TYPE_CHECKING:
    import torch

    from graftlab.types import Batch


@choice("sft")
@dataclass(kw_only=True, slots=True)
class SFT(Objective):
    """Next-token cross-entropy in nats, summed over labelled positions."""

    def terms(self, policy: Any, batch: Batch) -> dict[str, torch.Tensor]:
        return {"loss": policy.label_nll(batch)}
