"""Which device a run uses, and how fast its matrix unit is."""

from __future__ import annotations

import time
from functools import cache

import torch

from graftlab.errors import ConfigError
from graftlab.models.arithmetic import product_dtype


def pick_device(
    name: str = "auto", *, local_rank: int = 0, key: str = "trainer.accelerator"
) -> torch.device:
    """The device for `auto`, `cpu`, `cuda` or `mps`. Raises ConfigError if it is not there."""
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if name == "auto":
        name = "cuda" if cuda else "mps" if mps else "cpu"
    if (name == "cuda" and not cuda) or (name == "mps" and not mps):
        raise ConfigError(f"{key}={name}, but PyTorch sees no such device here: use auto.")
    return torch.device(name, local_rank) if name == "cuda" else torch.device(name)


def device_name(device: torch.device) -> str:
    """A name for people: the GPU's, or the processor with its threads."""
    if device.type == "cuda":
        return f"cuda ({torch.cuda.get_device_name(device)})"
    if device.type == "cpu":
        threads = torch.get_num_threads()
        return f"cpu ({threads} thread{'' if threads == 1 else 's'})"
    return device.type


@cache
def matrix_peak(device: torch.device, dtype: torch.dtype) -> float:
    """Floating-point operations per second of a large matrix product, measured once a process."""
    size = 1024 if device.type == "cpu" else 4096
    left, right = (
        torch.randn(size, size, device=device).to(product_dtype(device, dtype)) for _ in range(2)
    )

    def timed() -> float:
        start = time.perf_counter()
        (left @ right).sum().item()  # .item() waits for the device
        return time.perf_counter() - start

    return 2 * size**3 / min(timed() for _ in range(4))
