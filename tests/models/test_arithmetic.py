"""bf16 is computed in only where a device has it, and one place says where that is."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from demo_assets.course import Course, learn
from graftlab.models import arithmetic
from graftlab.models.arithmetic import fastest_autocast, has_bf16
from graftlab.training.precision import Precision, resolve

CPU = torch.device("cpu")
ROOT = Path(__file__).parents[2]
FIXED = re.compile(r"autocast\([^)]*bfloat16")


@pytest.mark.parametrize(("flag", "masked", "has"), [
    ("avx512_bf16", False, True), ("amx_bf16", False, True), ("bf16", False, True),
    ("avx512_bf16", True, False), ("avx2", False, False),
])  # fmt: skip
def test_flags_and_masks_decide(monkeypatch, flag: str, masked: bool, has: bool):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {flag: True, "fma3": True})
    monkeypatch.setattr(arithmetic, "_masked", lambda: masked)
    assert has_bf16(CPU) == (has, "the processor")
    assert resolve(Precision(), CPU).name == ("bf16-mixed" if has else "fp32")
    with fastest_autocast(CPU):
        assert torch.is_autocast_enabled("cpu") == has


@pytest.mark.parametrize("has", [True, False])
def test_a_base_is_pretrained_in_what_the_processor_has(monkeypatch, has: bool):
    monkeypatch.setattr(arithmetic, "has_bf16", lambda device: (has, "the processor"))
    model = torch.nn.Linear(8, 8)
    seen: set[torch.dtype] = set()

    def loss(rows: torch.Tensor) -> torch.Tensor:
        made = model(torch.nn.functional.one_hot(rows[:, :-1], 8).float())
        seen.add(made.dtype)
        return made.float().square().mean()

    learn(
        model,
        torch.arange(257).remainder(8).numpy(),
        Course(row_length=16, context=32, step_tokens=64),
        loss=loss,
        optimizers=[torch.optim.SGD(model.parameters(), lr=0.1)],
        on_step=lambda step, steps, loss: None,
    )
    assert seen == {torch.bfloat16 if has else torch.float32}


@pytest.mark.skipif(
    torch.cpu.get_capabilities()["architecture"] != "x86_64"
    or not torch.backends.mkldnn.is_available(),
    reason="ONEDNN_MAX_CPU_ISA masks units of x86 processors, in builds with oneDNN",
)
def test_a_processor_masked_by_onednn_is_believed():
    program = (
        "import torch; from graftlab.training.precision import *\n"
        "print(resolve(Precision(), torch.device('cpu')).name)"
    )
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=True
    )
    assert done.stdout.strip() == "fp32"


def test_nobody_else_fixes_autocast_to_bf16():
    files = [*(ROOT / "src").rglob("*.py"), *(ROOT / "benchmarks").glob("*.py")]
    assert len(files) > 100
    fixing = {path.name for path in files if FIXED.search(path.read_text(encoding="utf-8"))}
    # The benchmark's own loop is told its precision, which `arena.precisions` has chosen.
    assert fixing == {"arithmetic.py", "task.py"}
