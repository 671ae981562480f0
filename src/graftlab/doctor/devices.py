"""Processor and GPUs: memory, arithmetic as measured, attention, compilation."""

from __future__ import annotations

import importlib.util
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from graftlab.doctor.finding import Finding
from graftlab.limits import cores, memory_bytes
from graftlab.machine import GIB

if TYPE_CHECKING:
    import torch

LITTLE = 4 * GIB
"""Less memory than this trains the embedded base and hardly anything else."""
SLOWER = 0.8
"""Below this share of fp32's speed a 16-bit dtype has no units of its own."""


def check_devices() -> Iterator[Finding]:
    """Every device that PyTorch sees, the processor first."""
    import torch

    total = memory_bytes()
    yield Finding(
        "processor",
        f"{_processor()}, {cores()} cores, {torch.get_num_threads()} threads, "
        f"{total / GIB:.1f} GiB of memory",
        None if total >= LITTLE else "close other programs, or take a machine with more memory",
    )
    yield from _device(torch.device("cpu"))
    for index in range(torch.cuda.device_count()):
        device = torch.device("cuda", index)
        free, total = torch.cuda.mem_get_info(device)
        major, minor = torch.cuda.get_device_capability(device)
        yield Finding(
            f"cuda:{index}",
            f"{torch.cuda.get_device_name(device)}, compute capability {major}.{minor}, "
            f"{free / GIB:.1f} of {total / GIB:.1f} GiB free",
            None if free > total / 2 else "another process holds its memory: see nvidia-smi",
        )
        yield from _device(device)
    if torch.backends.mps.is_available():
        yield Finding("mps", "the GPU of this Mac, which shares the memory")
        yield from _device(torch.device("mps"))
    if not torch.cuda.is_available() and Path("/proc/driver/nvidia/version").exists():
        yield Finding(
            "cuda",
            f"an NVIDIA driver is loaded, and PyTorch {torch.__version__} does not see its GPU",
            "install a CUDA build of PyTorch (pytorch.org), and look at what nvidia-smi says",
        )


def _device(device: torch.device) -> Iterator[Finding]:
    import torch

    from graftlab.training.device import matrix_peak
    from graftlab.training.precision import Precision, resolve

    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16}
    if device.type == "cuda":
        dtypes["fp16"] = torch.float16
    rates = {name: matrix_peak(device, dtype) for name, dtype in dtypes.items()}
    said = ", ".join(f"{name} {rate / 1e12:.2f}" for name, rate in rates.items())
    yield Finding(f"{device.type} arithmetic", f"{said} TFLOP/s, measured")
    chosen = resolve(Precision(), device)
    slow = chosen.name != "fp32" and rates["bf16"] < SLOWER * rates["fp32"]
    yield Finding(
        f"{device.type} precision=auto",
        f"{chosen.name}: {chosen.reason}",
        "bf16 is slower than fp32 here: measure a short run with precision=fp32" if slow else None,
    )
    yield Finding(f"{device.type} attention", _attention(device, chosen.base_dtype))


def _attention(device: torch.device, dtype: torch.dtype) -> str:
    """What attends in packed rows, for heads as most models have them."""
    from transformers import LlamaConfig

    from graftlab.packing.attention import choose_backend

    config = LlamaConfig(hidden_size=512, num_attention_heads=8, num_hidden_layers=1)
    name, reason = choose_backend("auto", device, dtype, config)
    return f"{name} ({reason})" if reason else name


def check_compile() -> Iterator[Finding]:
    """Whether torch.compile makes a function here; a compiler that is missing shows only then."""
    import torch

    def double(x: torch.Tensor) -> torch.Tensor:
        return x.sin() * 2

    x = torch.arange(4.0)
    try:
        torch.testing.assert_close(torch.compile(double)(x), double(x))
    except Exception as error:  # of many kinds: no compiler, no headers, a read-only cache
        reason = str(error).strip().partition("\n")[0][:120]
        yield Finding(
            "torch.compile",
            f"does not work: {type(error).__name__}: {reason}",
            "install a C++ compiler (apt install g++ python3-dev), or set compile=off",
        )
    else:
        yield Finding("torch.compile", "works")


def check_bitsandbytes() -> Iterator[Finding]:
    """Which code executes products of quantised bases."""
    found = importlib.util.find_spec("bitsandbytes") is not None
    kind = "bitsandbytes' kernels" if found else "graftlab's own functions"
    yield Finding("quantised bases", kind)


def _processor() -> str:
    """Its name, as the system has it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
