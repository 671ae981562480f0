"""The contestants: each trains the workload in a process of its own and reports steps and memory.

Run as (the benchmarks do):
    python benchmarks/contestants.py NAME WORKLOAD_FOLDER '{"precision": "bf16", ...}' REPORT.json
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plain_loop import plain_loop
from task import LEARNING_RATE, Report, Task, main, peft_model, tokenizer
from workload import MAX_LENGTH, RANK

if TYPE_CHECKING:
    from graftlab.types import Tokens


def graftlab(task: Task, *, compiled: bool = False, own: Mapping[str, Any] | None = None) -> Report:
    """The real thing: the verb `train`, its data path, its trainer and its callbacks.

    `own` are overrides that go before those below.
    """
    import transformers.models.qwen2.modeling_qwen2  # noqa: F401  counted as an import

    import graftlab.training.run  # noqa: F401  the same
    from graftlab.cli.compose import build, compose
    from graftlab.tracking.result import resident_mb
    from graftlab.training.observer import Observer
    from graftlab.training.start import run

    report = Report(imported_mb=resident_mb())
    seen = [(0.0, task.now())]

    class Clock(Observer):
        def after_step(self, row: dict[str, float]) -> None:
            seen.append((row["tokens"], task.now()))

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "run"
        overrides = {
            "model": "hf",
            "model.path": task.workload.base,
            "data": "jsonl",
            "data.train": task.workload.chats,
            "data.valid_fraction": 0.0,
            "precision": {"bf16": "bf16-mixed", "fp32": "fp32"}[task.precision],
            "packing.max_length": MAX_LENGTH,
            "lora": "attn-mlp",
            "lora.rank": RANK,
            "lr": LEARNING_RATE,
            "schedule": "constant",
            "trainer": "cpu",
            "callbacks": "quiet",
            "logger": "csv",
            "epochs": 100,
            "max_steps": task.steps,
            "batch_size": task.batch_size,
            "compile": "on" if compiled else "off",
            "run_dir": folder,
            **(own or {}),
        }
        spec = build(
            compose("train", [f"{key}={value}" for key, value in overrides.items()])
        ).training()
        result = run(spec, observer=Clock())
    assert result.compiled == compiled
    report.steps = [(b[0] - a[0], b[1] - a[1]) for a, b in pairwise(seen)]
    report.peak_rss_mb = result.peak_rss_mb
    return report


def hf_trainer(task: Task) -> Report:
    """transformers' Trainer and DataCollatorWithFlattening on PEFT's model, as documented."""
    from transformers import (
        DataCollatorWithFlattening,
        Trainer,
        TrainerCallback,
        TrainingArguments,
    )

    report = Report()

    class Clock(TrainerCallback):
        begun = 0.0

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.begun = task.now()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            report.steps.append((sizes.pop(0), task.now() - self.begun))

    flatten = DataCollatorWithFlattening()
    sizes: list[int] = []

    def collate(rows: list[list[dict[str, list[int]]]]) -> dict[str, Any]:
        batch: dict[str, Any] = flatten([document for row in rows for document in row])
        sizes.append(batch["input_ids"].numel())
        return batch

    model = peft_model(task, attention="sdpa")
    model.config.use_cache = False
    with tempfile.TemporaryDirectory() as scratch:
        arguments = TrainingArguments(
            output_dir=scratch,
            use_cpu=True,
            bf16=task.precision == "bf16",
            per_device_train_batch_size=task.batch_size,
            max_steps=task.steps,
            learning_rate=LEARNING_RATE,
            lr_scheduler_type="constant",
            report_to="none",
            logging_strategy="no",
            save_strategy="no",
            remove_unused_columns=False,
            disable_tqdm=True,
        )
        rows = [[_unshifted(document) for document in row] for row in task.workload.rows()]
        Trainer(
            model, arguments, train_dataset=rows, data_collator=collate, callbacks=[Clock()]
        ).train()
    return report


def trl_trainer(task: Task) -> Report:
    """TRL's SFTTrainer on the same packed rows, loss on the assistant's tokens only."""
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import SFTConfig, SFTTrainer

    report = Report()
    rows = task.workload.rows()

    class Clock(TrainerCallback):
        begun = 0.0

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.begun = task.now()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            size = sum(len(document) + 1 for document in rows[len(report.steps) % len(rows)])
            report.steps.append((size, task.now() - self.begun))

    packed = [
        {
            "input_ids": [token for document in row for token in _unshifted(document)["input_ids"]],
            "labels": [label for document in row for label in _unshifted(document)["labels"]],
            "seq_lengths": [len(document) + 1 for document in row],
        }
        for row in rows
    ]
    with tempfile.TemporaryDirectory() as scratch:
        arguments = SFTConfig(
            output_dir=scratch,
            use_cpu=True,
            bf16=task.precision == "bf16",
            per_device_train_batch_size=task.batch_size,
            max_steps=task.steps,
            learning_rate=LEARNING_RATE,
            lr_scheduler_type="constant",
            report_to="none",
            logging_strategy="no",
            save_strategy="no",
            disable_tqdm=True,
            padding_free=True,
            packing=False,
            max_length=None,
            gradient_checkpointing=False,
            shuffle_dataset=False,
            train_sampling_strategy="sequential",
            dataset_kwargs={"skip_prepare_dataset": True},
        )
        SFTTrainer(
            peft_model(task, attention="sdpa"),
            arguments,
            train_dataset=Dataset.from_list(packed),
            processing_class=tokenizer(task),
            callbacks=[Clock()],
        ).train()
    return report


def _unshifted(document: Tokens) -> dict[str, list[int]]:
    """The document as transformers' losses want it: labels lie on the tokens themselves."""
    return {
        "input_ids": [*document.input_ids.tolist(), int(document.labels[-1])],
        "labels": [-100, *document.labels.tolist()],
    }


CONTESTANTS: dict[str, Callable[[Task], Report]] = {
    "HF Trainer, flattening collator": hf_trainer,
    "TRL SFTTrainer, packed": trl_trainer,
    "plain loop, SDPA per document": plain_loop,
    "graftlab, compile=off": graftlab,
    "graftlab, compile=on": lambda task: graftlab(task, compiled=True),
    "graftlab, objective=kl-sft": lambda t: graftlab(t, own={"objective": "kl-sft"}),
    "plain loop, padded to max_length": lambda task: plain_loop(task, layout="max"),
    "plain loop, padded within the batch": lambda task: plain_loop(task, layout="batch"),
}


if __name__ == "__main__":
    main(CONTESTANTS)
