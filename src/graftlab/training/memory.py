"""Out of memory: an error that names the next thing to change, cheapest first."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from graftlab.errors import GraftlabError

if TYPE_CHECKING:
    from graftlab.training.spec import TrainSpec


@contextmanager
def memory_advice(spec: TrainSpec) -> Iterator[None]:
    """Turn running out of memory inside into a GraftlabError with advice for `spec`."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not _out_of_memory(error):
            raise
        raise GraftlabError(_memory_advice(spec)) from error


def _out_of_memory(error: BaseException) -> bool:
    text = str(error)
    return (
        isinstance(error, (torch.OutOfMemoryError, MemoryError))
        or "can't allocate memory" in text
        or "out of memory" in text
    )


def _memory_advice(spec: TrainSpec) -> str:
    """The next thing to change, cheapest first."""
    if spec.batch_size > 1:
        half = spec.batch_size // 2
        fix = (
            f"batch_size={half} accumulate={spec.accumulate * spec.batch_size // half} "
            "(the same update in smaller pieces)"
        )
    elif not spec.model.gradient_checkpointing:
        fix = "model.gradient_checkpointing=true (the same update, about a third slower)"
    elif spec.packing.max_length > 1024:
        fix = f"packing.max_length={spec.packing.max_length // 2} (longer documents are dropped)"
    elif spec.lora.full:
        fix = "a smaller model (model.hidden or model.layers of model=draft)"
    else:
        fix = f"lora.rank={max(1, spec.lora.rank // 2)}, or a smaller model"
    return f"Out of memory. Try next: {fix}."
