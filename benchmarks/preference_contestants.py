"""The contestants of preference.py: each trains the pairs with DPO, in a process of its own.

Run as (the benchmark does):
    python benchmarks/preference_contestants.py NAME WORKLOAD_FOLDER '{"precision": "bf16", ...}' \\
        REPORT.json
"""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from contestants import graftlab
from task import LEARNING_RATE, Report, Task, base_model, lora_config, main, tokenizer
from workload import MAX_LENGTH

TRL = "TRL DPOTrainer"
SHARED = "graftlab"
APART = "graftlab, packing.share_prompts=false"
SFT = "graftlab, objective=sft on the chosen answers"
WARM = 1


def ours(task: Task, *, own: Mapping[str, Any] | None = None) -> Report:
    """graftlab on the pairs: a row of them a step, `WARM` steps and one pass over all rows."""
    own = {"objective": "dpo", "data.train": task.workload.pairs, **(own or {})}
    lengths = _lengths(task, own)
    task.steps = WARM + _num_rows(lengths)
    report = graftlab(task, own=own)
    each = statistics.mean(lengths)
    report.steps = [(tokens / each, seconds) for tokens, seconds in report.steps]
    return report


def _lengths(task: Task, own: Mapping[str, Any]) -> list[int]:
    """Tokens of each document that graftlab makes of the pairs, or of their chosen answers."""
    from graftlab.data.jsonl import JsonlData
    from graftlab.text.encode import encode
    from graftlab.text.load import load_tokenizer

    chosen = {"preference": "chosen"} if "data.preference" in own else {}
    data = JsonlData(train=str(task.workload.pairs), valid_fraction=0.0, **chosen).load()
    tokens = encode(
        data.train,
        load_tokenizer(task.workload.base),
        max_length=MAX_LENGTH,
        over_limit="error",
        share_prompts=own.get("packing.share_prompts", True),
    )
    return [int(length) for length in tokens.lengths]


def _num_rows(lengths: list[int]) -> int:
    from graftlab.packing.plan import Packing, plan_rows

    return len(plan_rows(lengths, Packing(max_length=MAX_LENGTH)))


def trl(task: Task, *, precompute: bool, pairs: int, accumulate: int = 1) -> Report:
    """TRL's DPOTrainer, the base of PEFT's model as the reference; `pairs` a pass.

    Its padding_free is not there in this version: it warns and pads.
    """
    import transformers.models.qwen2.modeling_qwen2  # noqa: F401  counted as an import
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import DPOConfig, DPOTrainer

    from graftlab.tracking.result import resident_mb

    report = Report(imported_mb=resident_mb())

    class Clock(TrainerCallback):
        begun = 0.0

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.begun = task.now()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            report.steps.append((pairs * accumulate, task.now() - self.begun))

    lines = task.workload.pairs.read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    assert len(rows) % (pairs * accumulate) == 0, "every pair once in the steps that count"
    with tempfile.TemporaryDirectory() as scratch:
        arguments = DPOConfig(
            output_dir=scratch,
            use_cpu=True,
            bf16=task.precision == "bf16",
            per_device_train_batch_size=pairs,
            gradient_accumulation_steps=accumulate,
            max_steps=WARM + len(rows) // (pairs * accumulate),
            learning_rate=LEARNING_RATE,
            lr_scheduler_type="constant",
            report_to="none",
            logging_strategy="no",
            save_strategy="no",
            disable_tqdm=True,
            max_length=None,
            precompute_ref_log_probs=precompute,
            gradient_checkpointing=False,
            train_sampling_strategy="sequential",
        )
        DPOTrainer(
            base_model(task, attention="sdpa"),
            args=arguments,
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer(task),
            peft_config=lora_config(),
            callbacks=[Clock()],
        ).train()
    return report


CONTESTANTS: dict[str, Callable[[Task], Report]] = {
    f"{TRL}, reference in each step": partial(trl, precompute=False, pairs=3),
    f"{TRL}, reference precomputed": partial(trl, precompute=True, pairs=3),
    f"{TRL}, precomputed, a pair a pass": partial(trl, precompute=True, pairs=1, accumulate=3),
    APART: partial(ours, own={"packing.share_prompts": False}),
    SHARED: ours,
    SFT: partial(ours, own={"objective": "sft", "data.preference": "chosen"}),
}


if __name__ == "__main__":
    main(CONTESTANTS)
