"""Pages of a mapped file, given back once they are read: a cast copy then costs only itself.

A weight that is cast or moved is read from its file once and not needed there again, but the
system counts its pages as this process's until memory runs short: loading 12 GB of fp32 as bf16
would peak at 18 GB.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor

DONTNEED = 4
"""MADV_DONTNEED of madvise(2): clean pages of a file are dropped, and read again when touched."""
PIECE = 1 << 25
"""Bytes that are read at once: an embedding of a gigabyte would be resident twice."""


class MappedFile:
    """A file that this process has mapped privately and never writes to."""

    def __init__(self, path: Path) -> None:
        self._spans = _spans_of(path.resolve())

    def copy(self, tensor: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
        """`tensor` (rows, ...) on `device` in `dtype`; the tensor itself where it is that already.

        A copy is made piece by piece, each piece's pages given back before the next is read.
        """
        import torch

        if tensor.device == device and tensor.dtype == dtype:
            return tensor
        copied = torch.empty(tensor.shape, dtype=dtype, device=device)
        if tensor.ndim == 0 or tensor.nbytes <= PIECE:
            copied.copy_(tensor)
            self.forget(tensor)
            return copied
        rows = max(1, len(tensor) * PIECE // tensor.nbytes)
        pieces = zip(torch.split(copied, rows), torch.split(tensor, rows), strict=True)
        for target, piece in pieces:
            target.copy_(piece)
            self.forget(piece)
        return copied

    def forget(self, tensor: Tensor) -> None:
        """Give the pages behind `tensor` back, where it lies in this file; else do nothing."""
        start = tensor.data_ptr() // mmap.PAGESIZE * mmap.PAGESIZE
        end = tensor.data_ptr() + tensor.nbytes
        # Anywhere else than in the file the pages would come back as zeros.
        if any(first <= start and end <= last for first, last in self._spans):
            advise = ctypes.CDLL(None).madvise
            advise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), DONTNEED)


def _spans_of(path: Path) -> list[tuple[int, int]]:
    """Address ranges that the file is mapped at; none where the system does not say."""
    maps = Path("/proc/self/maps")
    if sys.platform != "linux" or not maps.exists():
        return []
    lines = [line.split(maxsplit=5) for line in maps.read_text().splitlines()]
    found = [line[0].split("-") for line in lines if len(line) == 6 and line[5] == str(path)]
    return [(int(start, 16), int(end, 16)) for start, end in found]
