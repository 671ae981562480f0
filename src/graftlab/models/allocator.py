"""Make glibc keep the memory it has: one setting, worth up to two thirds more speed on a CPU."""

from __future__ import annotations

import ctypes
import os

TRIM_THRESHOLD, TOP_PAD, MMAP_MAX = -1, -2, -4
"""Parameter numbers of mallopt(3)."""
TOP_PAD_BYTES = 256 * 2**20
NEVER_TRIM = 2**31 - 1

_tuned = False


def tune_allocator() -> bool:
    """Keep freed tensors for the next one instead of handing them back; whether it was applied.

    By default glibc maps every large tensor anew and unmaps it when freed, so each of a step's
    thousands of temporaries is paid for page by page. With no mapped blocks (MMAP_MAX 0), a heap
    that is never trimmed and that grows by 256 MiB at a time, a step reuses the pages of the last
    one. Measured on two cores (bf16, LoRA): 3.2 s -> 1.9 s a step with a hidden size of 896, a few
    percent to a tenth with 384; peak memory rises by up to a fifth, through fragmentation.

    Call before the first large tensor. Applied once per process; False where the C library is not
    glibc (macOS, musl) or the user has tuned it through MALLOC_* variables or a preloaded library.
    """
    global _tuned
    if _tuned:
        return True
    if not _is_glibc() or _user_has_tuned():
        return False
    mallopt = ctypes.CDLL(None).mallopt
    settings = ((MMAP_MAX, 0), (TRIM_THRESHOLD, NEVER_TRIM), (TOP_PAD, TOP_PAD_BYTES))
    _tuned = all(mallopt(name, value) == 1 for name, value in settings)
    return _tuned


def _is_glibc() -> bool:
    try:
        return (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc")
    except (AttributeError, ValueError):
        return False


def _user_has_tuned() -> bool:
    names = {"MALLOC_MMAP_MAX_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES"}
    return "malloc" in os.environ.get("LD_PRELOAD", "") or not names.isdisjoint(os.environ)
