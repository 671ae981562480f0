"""Where jobs can run at once: GPUs by id, one MPS device, or shares of the processor."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from dataclasses import dataclass, field

from graftlab.errors import ConfigError
from graftlab.limits import cores, memory_bytes

RESERVE_BYTES = 2.5 * 2**30
"""Main memory that a process on the processor is taken to need besides two copies of its base."""


@dataclass(frozen=True, slots=True)
class Slot:
    """One worker's place: what its environment says of threads and devices."""

    name: str
    environment: dict[str, str] = field(default_factory=dict)


def find_slots(
    slots: int | None,
    threads: int | None,
    *,
    accelerator: str,
    devices: int,
    base_bytes: float,
    jobs: int,
) -> list[Slot]:
    """The slots of this machine for jobs of `devices` processes each.

    `accelerator` is the trainer's (auto, cpu, cuda, mps); `base_bytes` the size of the weights on
    disk. Threads are divided, so that all slots together have the cores there are.
    """
    gpus = visible_gpus() if accelerator in ("auto", "cuda") else []
    if gpus and len(gpus) < devices:
        raise ConfigError(
            f"trainer.devices={devices}: a job needs {devices} GPUs, and {len(gpus)} are visible."
        )
    if gpus:
        starts = range(0, len(gpus) - devices + 1, devices)
        groups = [",".join(gpus[start : start + devices]) for start in starts]
        count = min(slots or len(groups), max(1, jobs))
        share = str(threads or max(1, cores() // count))
        return [
            Slot(f"gpu {ids}", {"CUDA_VISIBLE_DEVICES": ids, "OMP_NUM_THREADS": share})
            for ids in (groups[i % len(groups)] for i in range(count))
        ]
    on_mac = accelerator == "mps" or (accelerator == "auto" and platform.system() == "Darwin")
    count = min(slots or (1 if on_mac else _fitting(base_bytes, devices)), max(1, jobs))
    each = threads or max(1, cores() // (count * devices))
    return [Slot(f"cpu {i}", {"OMP_NUM_THREADS": str(each)}) for i in range(count)]


def visible_gpus() -> list[str]:
    """Ids of the CUDA devices a child would see, without loading PyTorch."""
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if listed is not None:
        return [name.strip() for name in listed.split(",") if name.strip() not in ("", "-1")]
    if shutil.which("nvidia-smi") is None:
        return []
    found = subprocess.run(
        ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"],
        capture_output=True,
        text=True,
        check=False,
    )
    return found.stdout.split() if found.returncode == 0 else []


def _fitting(base_bytes: float, devices: int) -> int:
    """As many as the cores, but no more than the memory carries."""
    wanted = max(1, cores() // devices)
    each = devices * (2 * base_bytes + RESERVE_BYTES)  # every process loads the base
    return max(1, min(wanted, int(0.8 * memory_bytes() / each)))
