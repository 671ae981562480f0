"""The validation loss: nats per trained token over a whole set, without holding logits."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from graftlab.objectives.policy import Policy
    from graftlab.packing.loader import PackedLoader


def validation_loss(
    policy: Policy,
    loader: PackedLoader,
    *,
    autocast: Callable[[], AbstractContextManager[Any]],
    device: torch.device,
    reduce: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> float:
    """Mean negative log-likelihood per labelled token of all documents of `loader`.

    `reduce` sums a (2,) tensor over processes when the loader is one of several.
    """
    total = torch.zeros(2, dtype=torch.float64)
    with policy.base.evaluating(), torch.no_grad(), autocast():
        for batch in loader:
            nll = policy.label_nll(batch.to(device))
            total[0] += nll.cpu().double()
            total[1] += int((batch.labels >= 0).sum())
    loader.load_state_dict({"epoch": 0, "done": 0})
    if reduce is not None:
        total = reduce(total.to(device))
    return float(total[0] / total[1])
