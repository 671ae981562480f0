"""The contestants: each trains the workload in a process of its own and reports steps and memory.

Run as (the benchmarks do):
    python benchmarks/contestants.py NAME WORKLOAD_FOLDER '{"precision": "bf16", ...}' REPORT.json
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from itertools import cycle, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workload import MAX_LENGTH, RANK, TARGETS, Workload

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from graftlab.types import Tokens

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
    """Count the process's own processor seconds, which other work on the machine adds little to
    (graftlab and TRL's DPOTrainer)."""

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
            self.begun = time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            report.steps.append((sizes.pop(0), time.perf_counter() - self.begun))

    flatten = DataCollatorWithFlattening()
    sizes: list[int] = []

    def collate(rows: list[list[dict[str, list[int]]]]) -> dict[str, Any]:
        batch: dict[str, Any] = flatten([document for row in rows for document in row])
        sizes.append(batch["input_ids"].numel())
        return batch

    model = _peft_model(task, attention="sdpa")
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
            self.begun = time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            size = sum(len(document) + 1 for document in rows[len(report.steps) % len(rows)])
            report.steps.append((size, time.perf_counter() - self.begun))

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
            _peft_model(task, attention="sdpa"),
            arguments,
            train_dataset=Dataset.from_list(packed),
            processing_class=tokenizer(task),
            callbacks=[Clock()],
        ).train()
    return report


def plain_loop(task: Task, *, layout: str = "packed") -> Report:
    """A careful hand-written loop: PEFT, stock SDPA per document, logits only at labels.

    `layout` packed takes rows of whole documents; batch and max pad one document to a row, to the
    longest of the batch or to the longest allowed. Right padding needs no mask: attention is causal
    and padding has no label.
    """
    import torch
    from torch.nn import functional

    report = Report()
    model = _peft_model(task, attention=_register_stock())
    head, body = model.base_model.model.lm_head, model.base_model.model.model
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE)
    batches = _batches(task, layout)
    for _ in range(task.steps):
        begun = time.perf_counter()
        ids, labels, positions, edges, useful = next(batches)
        with _autocast(task):
            hidden = body(
                input_ids=ids, position_ids=positions, edges=edges, use_cache=False
            ).last_hidden_state
            labelled = labels != -100
            loss = functional.cross_entropy(head(hidden[labelled]).float(), labels[labelled])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        report.steps.append((useful, time.perf_counter() - begun))
    return report


def _batches(
    task: Task, layout: str
) -> Iterator[tuple[Tensor, Tensor, Tensor, list[int] | None, int]]:
    """(ids, labels, positions, document edges or None, useful tokens) of endless steps."""
    import torch

    rows = task.workload.rows()
    if layout != "packed":
        rows = [[document] for row in rows for document in row]
    endless = cycle(rows)
    while True:
        documents = [document for _ in range(task.batch_size) for document in next(endless)]
        lengths = [len(document) for document in documents]
        parts = [
            (torch.from_numpy(d.input_ids).long(), torch.from_numpy(d.labels).long())
            for d in documents
        ]
        if layout == "packed":
            ids, labels = (torch.cat(part)[None] for part in zip(*parts, strict=True))
            positions = torch.cat([torch.arange(length) for length in lengths])[None]
            edges = torch.tensor([0, *lengths]).cumsum(0).tolist()
        else:
            width = max(lengths) if layout == "batch" else MAX_LENGTH
            ids = torch.zeros(len(parts), width, dtype=torch.long)
            labels = torch.full_like(ids, -100)
            for row, (tokens, targets) in enumerate(parts):
                ids[row, : len(tokens)] = tokens
                labels[row, : len(tokens)] = targets
            positions, edges = torch.arange(width).expand_as(ids), None
        yield ids, labels, positions, edges, sum(lengths)


def _register_stock() -> str:
    """Stock SDPA, once per document; registered for transformers under the name returned."""
    import torch
    from torch.nn.functional import scaled_dot_product_attention
    from transformers import AttentionInterface

    def stock(
        module: torch.nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        *,
        scaling: float | None = None,
        edges: list[int] | None = None,
        **_: Any,
    ) -> tuple[Tensor, None]:
        pieces = []
        bounds = edges or [0, query.shape[2]]
        for start, end in pairwise(bounds):
            q, k, v = (x[:, :, start:end] for x in (query, key, value))
            pieces.append(
                scaled_dot_product_attention(
                    q, k, v, is_causal=True, scale=scaling, enable_gqa=True
                )
            )
        return torch.cat(pieces, 2).transpose(1, 2).contiguous(), None

    AttentionInterface.register("stock_per_document", stock)
    return "stock_per_document"


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


def _peft_model(task: Task, *, attention: str) -> Any:
    from peft import get_peft_model

    return get_peft_model(base_model(task, attention=attention), lora_config()).train()


def tokenizer(task: Task) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(task.workload.base)


def _autocast(task: Task) -> AbstractContextManager[Any]:
    import torch

    return torch.autocast("cpu", torch.bfloat16) if task.precision == "bf16" else nullcontext()


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


if __name__ == "__main__":
    main(CONTESTANTS)
