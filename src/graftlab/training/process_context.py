"""Where one process of a run stands: its device, its rank, how many there are."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from graftlab.models.allocator import tune_allocator
from graftlab.training.device import pick_device

if TYPE_CHECKING:
    from graftlab.training.spec import TrainSpec


@dataclass(frozen=True, slots=True)
class ProcessContext:
    """Where this process stands: device, rank, number of processes."""

    device: torch.device
    rank: int
    world_size: int

    @classmethod
    def resolve(cls, spec: TrainSpec) -> ProcessContext:
        """Pick the device and the number of threads; torchrun's variables say the rank."""
        tune_allocator()
        if spec.trainer.threads is not None:
            torch.set_num_threads(spec.trainer.threads)
        local = int(os.environ.get("LOCAL_RANK", "0"))
        several = spec.trainer.strategy != "single"
        return cls(
            pick_device(spec.trainer.accelerator, local_rank=local),
            int(os.environ.get("RANK", "0")) if several else 0,
            int(os.environ.get("WORLD_SIZE", "1")) if several else 1,
        )
