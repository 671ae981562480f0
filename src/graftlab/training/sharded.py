"""Several processes: DDP around a frozen base, and FSDP2, which shards it and not the adapter.

Only the base is large. FSDP2 gathers each decoder layer for its forward and backward pass and frees
it again; the adapter's parameters stay whole on every process, so its optimizer and checkpoints are
those of a single process, and its gradients are averaged once per optimizer step. Every process
loads the base whole before it is sharded, so it must fit one device by itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from lightning.pytorch.strategies import DDPStrategy


class ReplicatedBase(DDPStrategy):
    """DDP that leaves codes alone: every process has read them from the same files."""

    def configure_ddp(self) -> None:
        """Keep quantised weights out of the first exchange, which would write to them."""
        from torch.nn import parallel

        from graftlab.models.quantization.weight import QuantizedWeight

        wrapper: Any = parallel.DistributedDataParallel
        module: Any = self.model
        codes = [n for n, p in module.named_parameters() if isinstance(p, QuantizedWeight)]
        wrapper._set_params_and_buffers_to_ignore_for_model(module, codes)
        super().configure_ddp()


class ShardedBase(DDPStrategy):
    """Processes as in DDP; instead of wrapping the module, its base is sharded in place."""

    def configure_ddp(self) -> None:
        """Shard every decoder layer's frozen parameters (FSDP2's `fully_shard`)."""
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        adapted: Any = self.lightning_module  # training/module.py
        mesh = init_device_mesh(self.root_device.type, (self.world_size,))
        whole = {parameter for _, parameter in adapted.adapter.named_parameters()}
        for layer in adapted.policy.base.layers:
            fully_shard(layer, mesh=mesh, ignored_params=whole)


def average_gradients(parameters: Iterable[torch.Tensor], world_size: int) -> None:
    """Make every process hold the mean gradient, in one exchange."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    together = torch.cat([gradient.flatten() for gradient in gradients])
    torch.distributed.all_reduce(together)
    together /= world_size
    parts = torch.split(together, [gradient.numel() for gradient in gradients])
    for gradient, part in zip(gradients, parts, strict=True):
        gradient.copy_(part.view_as(gradient))
