"""Compile each decoder layer, where the steps planned repay the wait.

Layer by layer, because the layers of a model share one graph: Inductor compiles a training and an
evaluation graph once (about 20 s on two CPU cores, a third of that from its cache), while a whole
model takes three times as long and is no faster. Row length and number of documents are symbols of
that graph, so no row recompiles it.
"""

from __future__ import annotations

import shutil
import sysconfig
import warnings
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import nn

    from graftlab.models.base import Base

COMPILE_SECONDS = 45.0
"""What a cold compile costs: about 20 s for the training graph, as much again for validation."""
MARGIN = 2.0
"""Compile only where it saves this many times its cost: an estimate should not lose by much."""
SAVED_SECONDS = 2.5e-5
"""Saved per token on a CPU, whatever the size: the element-wise work of small models."""
SAVED_SECONDS_PER_PARAMETER = 2.2e-12
"""Saved per token and parameter on a CPU; 21.7M parameters, bf16: 4,450 -> 6,060 tokens/s."""
CUDA_STEPS = 300
"""On CUDA: from how many planned steps on."""
GRAPHS = 16
"""Most graphs of one base: two kinds of layers (sliding and full) x (first layer of a training
step, the others, evaluation with the adapter, without it, recomputation on or off)."""


def plan_compile(
    mode: str,
    *,
    planned_steps: int,
    tokens_per_step: float,
    device: torch.device,
    num_parameters: int = 20_000_000,
) -> tuple[bool, str]:
    """Whether to compile, and why, in words for the log.

    `mode` is auto, on or off; `planned_steps` counts micro-batches (forward and backward passes),
    `tokens_per_step` their tokens. `on` still yields to a device or machine that cannot.
    """
    if mode == "off":
        return False, "as configured"
    obstacle = find_obstacle(device)
    if obstacle is not None:
        return False, obstacle
    if mode == "on":
        return True, "as configured"
    if device.type == "cuda":
        worth = planned_steps >= CUDA_STEPS
        than = "at least" if worth else "fewer than"
        return worth, f"{planned_steps} passes planned, {than} {CUDA_STEPS}"
    per_token = SAVED_SECONDS + SAVED_SECONDS_PER_PARAMETER * num_parameters
    saved = planned_steps * tokens_per_step * per_token
    worth = saved > MARGIN * COMPILE_SECONDS
    verb = "saves" if worth else "would save"
    return worth, f"{verb} about {saved:.0f} s of the run, and costs about {COMPILE_SECONDS:.0f} s"


def find_obstacle(device: torch.device) -> str | None:
    """Why layers cannot be compiled on this machine, with the remedy; None if they can."""
    if device.type == "mps":
        return "not on MPS: its compiler backend is not dependable for training yet"
    if device.type == "cuda":
        return None if find_spec("triton") else "Triton is not installed (pip install triton)"
    if shutil.which("g++") is None and shutil.which("clang++") is None:
        return "no C++ compiler found (install g++ or clang++ to train about a third faster)"
    if not (Path(sysconfig.get_paths()["include"]) / "Python.h").is_file():
        return "Python's C headers are missing (install python3-dev to train about a third faster)"
    return None


def compile_layers(base: Base) -> None:
    """Compile every decoder layer, lazily on its first call; attach adapters before.

    Parameters, the adapter's included, are inputs of the compiled graphs: training or exchanging
    their values compiles nothing. One compiled function serves all layers of this base and counts
    its own graphs, so neither another layer nor an earlier job of the process uses up its limit.
    What keeps little of itself (`recompute.py`) is as it came: the compiler sees to that.
    """
    import torch

    from graftlab.models.recompute import restore_modules

    restore_layers(base)
    restore_modules(base)
    # While tracing, PyTorch looks at an attribute that it warns about looking at.
    warnings.filterwarnings("ignore", message=r"The \.grad attribute of a Tensor")
    limits: dict[str, Any] = {"recompile_limit": GRAPHS, "isolate_recompiles": True}
    run = torch.compile(_call_layer, dynamic=True, **limits)
    for layer in base.layers:
        layer.forward = partial(run, layer)


def restore_layers(base: Base) -> None:
    """Undo `compile_layers`: the layers run their own class's forward again."""
    for layer in base.layers:
        layer.__dict__.pop("forward", None)


def _call_layer(layer: nn.Module, *args: Any, **kwargs: Any) -> Any:
    return type(layer).forward(layer, *args, **kwargs)
