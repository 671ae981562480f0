"""In which dtype weights are stored, compute runs and the optimizer steps, and why.

    name         base stored   adapter   compute            optimizer step
    fp32         fp32          fp32      fp32               fp32
    bf16-mixed   bf16          fp32      bf16 autocast      fp32
    bf16         bf16          bf16      bf16               compensated: 16 more bits kept apart
    fp16-mixed   fp16          fp32      fp16 autocast      fp32, scaled loss (CUDA)

A frozen weight loses nothing by being stored in the dtype autocast would round it to anyway.
A *trained* bf16 weight is another matter: 8 bits of mantissa swallow updates below 0.4 % of the
weight, which is why plain bf16 adapters degenerate; see `training/split.py`. (Under `bf16`
gradients are summed over micro-batches in bf16 too: prefer bf16-mixed with a large `accumulate`.)
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from graftlab.errors import ConfigError, require_choice
from graftlab.models.arithmetic import has_bf16, product_dtype
from graftlab.models.upcast import upcast_products

if TYPE_CHECKING:
    import torch

PRECISIONS = ("auto", "fp32", "bf16-mixed", "bf16", "fp16-mixed")


@dataclass(kw_only=True, slots=True)
class Precision:
    """`precision=auto|fp32|bf16-mixed|bf16|fp16-mixed`."""

    name: str = "auto"
    """auto takes bf16-mixed where the device has bf16 arithmetic, else fp32."""

    def __post_init__(self) -> None:
        require_choice("precision", self.name, PRECISIONS)


@dataclass(frozen=True, slots=True)
class Resolved:
    """A precision on a device: dtypes, the autocast context, and the reason for people."""

    name: str
    base_dtype: torch.dtype
    adapter_dtype: torch.dtype
    autocast: Callable[[], AbstractContextManager[Any]]
    reason: str

    def stored(self, *, trained: bool) -> torch.dtype:
        """In which dtype a base is stored: one whose own weights are trained is not rounded."""
        return self.adapter_dtype if trained else self.base_dtype


def resolve(precision: Precision, device: torch.device) -> Resolved:
    """Settle `auto` and the dtypes; products that the processor has no units for are upcast.

    Raises ConfigError for fp16-mixed without CUDA.
    """
    import torch

    name, reason = precision.name, "as configured"
    if name == "auto":
        name, reason = _best(device)
    if name == "fp16-mixed" and device.type != "cuda":
        raise ConfigError(
            f"precision=fp16-mixed needs CUDA for its scaled loss, and this run is on "
            f"{device.type}: use bf16-mixed or fp32."
        )
    compute = {"bf16-mixed": torch.bfloat16, "fp16-mixed": torch.float16}.get(name)
    stored = compute or {"bf16": torch.bfloat16}.get(name, torch.float32)
    if stored != torch.float32 and product_dtype(device, stored) != stored:
        upcast_products()
        reason += "; products in fp32, as the processor has no bf16 arithmetic"

    def autocast() -> AbstractContextManager[Any]:
        if compute is None:
            return nullcontext()
        # The weight cache would hold bf16 copies of fp32 weights over the whole micro-batch.
        return torch.autocast(device.type, dtype=compute, cache_enabled=False)

    adapter = torch.bfloat16 if name == "bf16" else torch.float32
    return Resolved(name, stored, adapter, autocast, reason)


def _best(device: torch.device) -> tuple[str, str]:
    """bf16-mixed where the hardware multiplies bf16, else fp32; with the reason."""
    has, what = has_bf16(device)
    if has:
        return "bf16-mixed", f"auto: {what} has bf16 arithmetic"
    return "fp32", f"auto: {what} has no bf16 arithmetic"
