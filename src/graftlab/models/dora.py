"""DoRA's norms, kept while replies are made: PEFT multiplies B by A anew in every layer and pass.

    y = (m / ||W + s B A||) (W + s B A) x          arXiv 2402.09353

The product of the size of W serves the norm alone, so only norms are kept: a number for each row.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn


@contextmanager
def dora_norms_kept(model: nn.Module) -> Iterator[None]:
    """Inside the block, norms are those of the first pass: no weight may change meanwhile.

    Layers in train mode compute theirs anew all the same.
    """
    layers: list[Any] = [layer for layer in model.modules() if hasattr(layer, "_dora_cache")]
    if not layers:
        yield
        return
    from peft.helpers import DoraCaching

    for layer in layers:
        layer._cache_clear()
        layer._cache_store = partial(_store, layer._dora_cache)
    try:
        with DoraCaching():
            yield
    finally:
        for layer in layers:
            del layer._cache_store
            layer._cache_clear()


def _store(kept: dict[str, Tensor], key: str, value: Tensor) -> None:
    """In the place of B A, which nothing reads once there is a norm, nothing is kept."""
    kept[key] = value.new_empty(0) if key.startswith("lora-weight") else value
