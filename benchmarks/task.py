"""What a contestant is given and reports; the model, adapter and tokenizer that all take."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from workload import RANK, TARGETS, Workload

LEARNING_RATE = 1e-4


@dataclass(kw_only=True, slots=True)
class Task:
    """One run: the files, and how to train them."""

    workload: Workload
    precision: str = "bf16"
    """bf16 (mixed) or fp32."""
    steps: int = 8
    """Optimizer steps, warm ones included."""
    batch_size: int = 1
    """Rows a step."""
    processor: bool = False
    """Count the process's own processor seconds, which other work on the machine adds little to."""

    def now(self) -> float:
        """Seconds on the clock that counts."""
        return time.process_time() if self.processor else time.perf_counter()


@dataclass(kw_only=True, slots=True)
class Report:
    """What a run measured; `steps` are (useful tokens, seconds), padding not counted."""

    steps: list[tuple[float, float]] = field(default_factory=list)
    peak_rss_mb: float = 0.0
    imported_mb: float = 0.0
    """Resident before anything was loaded, its packages imported; 0 where it was not asked."""


def base_model(task: Task, *, attention: str) -> Any:
    """The workload's base in transformers, fp32."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    return AutoModelForCausalLM.from_pretrained(
        task.workload.base, dtype=torch.float32, attn_implementation=attention
    )


def lora_config() -> Any:
    """What all train, for PEFT."""
    from peft import LoraConfig

    return LoraConfig(task_type="CAUSAL_LM", r=RANK, lora_alpha=2 * RANK, target_modules=TARGETS)


def peft_model(task: Task, *, attention: str) -> Any:
    from peft import get_peft_model

    return get_peft_model(base_model(task, attention=attention), lora_config()).train()


def tokenizer(task: Task) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(task.workload.base)


def autocast(task: Task) -> AbstractContextManager[Any]:
    import torch

    return torch.autocast("cpu", torch.bfloat16) if task.precision == "bf16" else nullcontext()


def main(contestants: Mapping[str, Callable[[Task], Report]]) -> None:
    """Run the one that the command line names, and write its report."""
    import torch

    name, folder, options, target = sys.argv[1:]
    task = Task(workload=Workload.at(Path(folder)), **json.loads(options))
    report = contestants[name](task)
    if not report.peak_rss_mb:
        from graftlab.tracking.result import peak_rss_mb

        report.peak_rss_mb = peak_rss_mb()
    found = asdict(report) | {"threads": torch.get_num_threads()}
    Path(target).write_text(json.dumps(found), encoding="utf-8")
