"""What a process must have set before torch is loaded, whichever way it was started.

The command line, a rank that torchrun starts, and a script that calls `graftlab.tasks.train.run`
all come through here. What the user has set stays; children inherit it.
"""

from __future__ import annotations

import os

KEPT_KERNELS = 128
"""Compiled kernels that oneDNN keeps on a CPU. Its own limit is 1,024, and as every row has another
length it gets there (measured over 100 steps: 1,690 MiB with 1,024, 1,170 with 128)."""
SPIN_COUNT = 3000
"""How long a thread of libgomp spins while it waits. Threads that spin long starve each other as
soon as anything else runs (measured: 380 tokens/s against 2,900 beside one busy process); threads
that never spin are slow alone (1,790 against 2,870)."""


def prepare_process() -> None:
    """Set both in the environment. Read once, by libgomp when torch loads and by oneDNN later."""
    os.environ.setdefault("GOMP_SPINCOUNT", str(SPIN_COUNT))
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(KEPT_KERNELS))
