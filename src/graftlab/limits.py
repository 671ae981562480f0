"""What this process may use of the machine: its container's limits count, not the host's size.

Control groups, version 2, as Docker, Kubernetes and Slurm set them: a group is bound by its own
files and by those of every group around it.

    cpu.max       "150000 100000": one and a half processors; "max 100000": no limit
    memory.max    bytes; "max": no limit
    memory.current    bytes that the group takes
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")
MEMORY = Path("/proc/meminfo")


def cores() -> int:
    """Processors this process may use, whole ones, at least 1."""
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    shares = [_share(text) for text in _limits("cpu.max")]
    return max(1, int(min([here, *(share for share in shares if share is not None)])))


def memory_bytes() -> int:
    """Main memory this process may use."""
    here = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([here, *(int(text) for text in _limits("memory.max") if text.isdecimal())])


def free_memory_bytes() -> int:
    """What of it nobody takes; half of it all where the system does not say."""
    try:
        lines = MEMORY.read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return memory_bytes() // 2
    free = [1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    limits, taken = _limits("memory.max"), _limits("memory.current")
    pairs = zip(limits, taken, strict=False)
    free += [int(most) - int(now) for most, now in pairs if most.isdecimal() and now.isdecimal()]
    return max(0, min(free, default=0))


def _share(text: str) -> float | None:
    """Processors that a `cpu.max` allows; None where it sets no limit."""
    quota, _, period = text.partition(" ")
    if not (quota.isdecimal() and period.isdecimal() and int(period)):
        return None
    return int(quota) / int(period)


def _limits(name: str) -> Iterator[str]:
    """What the file says in this process's group and in every group around it."""
    try:
        lines = OWN.read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return
    for own in (line.removeprefix("0::/") for line in lines if line.startswith("0::/")):
        # In a container the path may be the host's, which is not there: its root is the limit then.
        for group in (ROOT / own, *(ROOT / parent for parent in Path(own).parents)):
            try:
                yield (group / name).read_text(encoding="utf-8").strip()
            except OSError:
                continue
