"""One base per process: loaded once, lent to one job after the other."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from graftlab.models.base import Base, ModelSpec

_Key = tuple[object, ...]
_State = dict[str, tuple[int, int]]

# The base at rest: what the next job with the same key gets. Empty while it is lent.
_resting: dict[_Key, tuple[Base, _State]] = {}


@contextmanager
def acquire(
    spec: ModelSpec,
    *,
    dtype: torch.dtype,
    device: torch.device,
    role: str = "base",
) -> Iterator[Base]:
    """The base of `spec`, as fresh as if just loaded, for the length of the `with` block.

    When the block ends, however it ends, the adapter is taken out and the base comes to rest. It
    is kept only if no weight was written to meanwhile; another spec replaces it, so that a
    process never holds two idle bases of one `role` (a teacher rests beside its student). Raises
    ModelError when the base cannot be loaded.
    """
    from graftlab.models.compile import restore_layers

    place = str(spec.folder())
    key = (role, place, spec.fingerprint(), spec.attention, dtype, str(device))
    resting = _resting.pop(key, None)
    for other in [other for other in _resting if other[0] == role]:
        del _resting[other]
    if not resting:
        gc.collect()  # a finished trainer holds its base in a reference cycle
    base = resting[0] if resting else spec.load(dtype=dtype, device=device)
    fresh = resting[1] if resting else _state(base)
    base.lendings += 1
    try:
        yield base
    finally:
        restore_layers(base)
        base.reset()
        if _state(base) == fresh:
            _resting[key] = (base, fresh)


def forget() -> None:
    """Let the resting base go, for instance before the memory is needed for something else."""
    _resting.clear()


def _state(base: Base) -> _State:
    """Where every tensor lies and how often it was written to; comparing costs no arithmetic."""
    tensors = [*base.model.named_parameters(), *base.model.named_buffers()]
    return {name: (tensor.data_ptr(), tensor._version) for name, tensor in tensors}
