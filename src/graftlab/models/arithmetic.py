"""Which 16-bit arithmetic a device has; whoever chooses a dtype for it asks here.

Where a processor has no bf16 units torch multiplies bf16 one number at a time, up to 30 times as
slowly as fp32; `upcast.py` has such products computed in fp32.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

CPU_FLAGS = ("amx_bf16", "avx512_bf16", "bf16")
"""Any of these, as torch names them: units of Intel, AMD and ARM that multiply bf16."""


def has_bf16(device: torch.device) -> tuple[bool, str]:
    """Whether the device multiplies bf16 in hardware; and what was asked, for people."""
    import torch

    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False), "the GPU"
    if device.type == "mps":
        return True, "MPS"
    capabilities = torch.cpu.get_capabilities()
    flagged = any(capabilities.get(flag, False) for flag in CPU_FLAGS)
    return flagged and not _masked(), "the processor"


def product_dtype(device: torch.device, dtype: torch.dtype) -> torch.dtype:
    """What products of `dtype` are computed in: fp32 for bf16 on a processor without its units."""
    import torch

    upcast = device.type == "cpu" and dtype == torch.bfloat16 and not has_bf16(device)[0]
    return torch.float32 if upcast else dtype


def fastest_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """For bases trained here: bf16 autocast where bf16 is multiplied in hardware, else fp32."""
    import torch

    if has_bf16(device)[0]:
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return nullcontext()


def _masked() -> bool:
    """Whether oneDNN leaves the processor's units alone, as ONEDNN_MAX_CPU_ISA tells it to."""
    import torch

    if not torch._C._has_mkldnn:
        return False
    return not torch.ops.mkldnn._is_mkldnn_bf16_supported()
