"""The contestants of `bases.py`: one run of loading, training or loss, in a process of its own.

Run as (bases.py does):
    python benchmarks/bases_contestants.py WORK '{"contestant": "nf4", "base": FOLDER, ...}'
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

from workload import RANK, TARGETS

COMPILED = "nf4, compiled"
OURS = {
    "bf16": ("none", "bf16-mixed"),
    "nf4": ("nf4", "bf16-mixed"),
    COMPILED: ("nf4", "bf16-mixed"),
    "int8": ("int8", "bf16-mixed"),
    "GGUF Q8_0": ("q8_0", "bf16-mixed"),
    "GGUF Q4_K_M": ("q4_k_m", "bf16-mixed"),
    "fp32": ("none", "fp32"),
}
"""Name -> how the base is stored, and the precision. Layers are compiled where the name says so."""
THEIRS = ("HF Trainer, bitsandbytes nf4", "HF Trainer, bitsandbytes int8")
MIB = 2**20


class Turns:
    """Tokens and processor time of each step; behind each the process stops, until it is told to
    go on: others have their turn.
    """

    def __init__(self, stops: bool) -> None:
        self.stops, self.steps, self.last = stops, list[tuple[float, float]](), time.process_time()

    def over(self, tokens: float) -> None:
        """A step of so many tokens is done."""
        now = time.process_time()
        self.steps.append((tokens, now - self.last))
        if self.stops:
            os.kill(os.getpid(), signal.SIGSTOP)
        self.last = time.process_time()

    @property
    def speeds(self) -> list[float]:
        """Tokens a second of every step but the first."""
        return [tokens / seconds for tokens, seconds in self.steps[1:]]


def words(asked: argparse.Namespace) -> list[str]:
    """The words of a command line for a base, and its precision."""
    from graftlab.cli.overrides import read_arguments

    stored, precision = OURS[asked.contestant]
    given = ["model=hf", f"model.path={asked.base}", f"quantization={stored}"]
    if stored.startswith("q"):
        given = ["model=gguf", f"model.path={asked.base}.{stored}/model.gguf"]
    given = [word.hydra for word in read_arguments(given, "train")]
    checkpoints = f"model.gradient_checkpointing={str(asked.checkpointing).lower()}"
    compiled = f"compile={'on' if asked.contestant == COMPILED else 'off'}"
    return [*given, checkpoints, compiled, f"precision={precision}"]


def products() -> Any:
    """bf16, or fp32 where the processor has no units for it, which would be theirs to choose."""
    import torch

    from graftlab.models.arithmetic import product_dtype

    return product_dtype(torch.device("cpu"), torch.bfloat16)


def theirs(asked: argparse.Namespace) -> Any:
    """transformers' model on bitsandbytes, frozen and in evaluation."""
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    kind: Any = {"load_in_8bit": True}
    if asked.contestant.endswith("nf4"):
        kind = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
        kind |= {"bnb_4bit_compute_dtype": products()}
    return AutoModelForCausalLM.from_pretrained(
        asked.base, dtype=products(), device_map="cpu", attn_implementation="sdpa",
        quantization_config=BitsAndBytesConfig(**kind),
    )  # fmt: skip


@contextmanager
def peak_of_own_memory() -> Iterator[list[float]]:
    """The most that the process holds inside in pages of its own, in MiB beyond the start."""
    found, done = [0.0], Event()

    def own() -> float:
        lines = Path("/proc/self/status").read_text().splitlines()
        return sum(float(x.split()[1]) for x in lines if x.startswith("RssAnon")) / 1024

    def watch() -> None:
        while not done.wait(0.002):
            found[0] = max(found[0], own() - start)

    start = own()
    thread = Thread(target=watch)
    thread.start()
    yield found
    done.set()
    thread.join()


def num_bytes(parameter: Any) -> int:
    """What a parameter takes, its codes and scales."""
    parts = [parameter.data, *getattr(parameter.data, "parts", ())]
    parts = parts[1:] if len(parts) > 1 else parts
    state = getattr(parameter, "quant_state", None)
    scales = getattr(parameter, "SCB", None) if state is None else state.absmax
    return sum(part.nbytes for part in (*parts, *(() if scales is None else (scales,))))


def loading(asked: argparse.Namespace) -> dict[str, float]:
    """MiB of the weights, the most while loading; bytes of the layers' matrices beside bf16."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from graftlab.cli.compose import build, compose
    from graftlab.models.allocator import tune_allocator
    from graftlab.models.tiny import TinyModel

    tune_allocator()
    place, ours = torch.device("cpu"), asked.contestant in OURS
    TinyModel().load(dtype=torch.float32, device=place)  # imports what loading needs
    if ours:
        spec = build(compose("train", [*words(asked), "run_dir=run"])).training().model
        spec.folder() if hasattr(spec, "folder") else None  # a GGUF's is made once
        bits = torch.float32 if OURS[asked.contestant][1] == "fp32" else torch.bfloat16
    else:
        import bitsandbytes  # noqa: F401  counted as an import
    with peak_of_own_memory() as peak:
        start = time.process_time()
        model = spec.load(dtype=bits, device=place).model if ours else theirs(asked)
        seconds = time.process_time() - start
    with torch.device("meta"):
        plain = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(asked.base))
    sizes = {name: p.numel() for name, p in plain.named_parameters() if p.ndim == 2}
    matrices = {n: p for n, p in model.named_parameters() if ".layers." in n and n in sizes}
    layer = sum(sizes[name] for name in matrices if ".layers.0." in name)
    return {
        "held": sum(map(num_bytes, model.parameters())) / MIB,
        "share": sum(map(num_bytes, matrices.values())) / 2 / sum(sizes[n] for n in matrices),
        "layer": 4 * layer / MIB,
        "peak": peak[0],
        "seconds": seconds,
    }


def training(asked: argparse.Namespace) -> dict[str, Any]:
    """Tokens a second, the first step left out; MiB beyond the imports."""
    return _ours(asked) if asked.contestant in OURS else _theirs(asked)


def _ours(asked: argparse.Namespace, *more: str) -> dict[str, Any]:
    import graftlab.training.run  # noqa: F401  counted as an import
    from graftlab.cli.compose import build, compose
    from graftlab.tracking.result import resident_mb
    from graftlab.training.observer import Observer
    from graftlab.training.start import run

    imported, turns, seen = resident_mb(), Turns(asked.turns), [0.0]

    class Clock(Observer):
        def after_step(self, row: dict[str, float]) -> None:
            seen.append(row["tokens"])
            turns.over(seen[-1] - seen[-2])

    with tempfile.TemporaryDirectory() as scratch:
        overrides = [
            *("lora=attn-mlp", f"lora.rank={RANK}", "batch_size=1", "epochs=100"),
            *(f"packing.max_length={asked.length}", "data.over_limit=drop"),
            *("data=jsonl", f"data.train={asked.data}", "data.valid_fraction=0.0"),
            *("callbacks=quiet", "logger=csv", "trainer=cpu", f"run_dir={scratch}/run"),
            *(f"max_steps={asked.steps}", *more),
        ]
        spec = build(compose("train", [*words(asked), *overrides])).training()
        result = run(spec, observer=Clock())
    found: dict[str, Any] = {"speeds": turns.speeds, "memory": result.peak_rss_mb - imported}
    if result.score is not None and result.baseline is not None:
        found |= {"loss": result.score, "baseline": result.baseline}
    return found


def documents(asked: argparse.Namespace) -> tuple[list[dict[str, list[int]]], list[list[int]]]:
    """The conversations, with labels on the tokens themselves, and graftlab's rows of them."""
    from graftlab.data.jsonl import JsonlData
    from graftlab.packing.plan import Packing, plan_rows
    from graftlab.text.encode import encode
    from graftlab.text.load import load_tokenizer

    tokenizer = load_tokenizer(Path(asked.base))
    chats = JsonlData(train=asked.data, valid_fraction=0.0).load(reserved=tokenizer.reserved).train
    tokens = encode(chats, tokenizer, max_length=asked.length, over_limit="drop")
    kept = [tokens[index] for index in range(len(tokens))]
    packing = Packing(strategy="best-fit", max_length=asked.length)
    return [
        {
            "input_ids": [*document.input_ids.tolist(), int(document.labels[-1])],
            "labels": [-100, *document.labels.tolist()],
        }
        for document in kept
    ], plan_rows([len(document) for document in kept], packing)


def _theirs(asked: argparse.Namespace) -> dict[str, Any]:
    """prepare_model_for_kbit_training, get_peft_model and Trainer, packed or padded by a collator.

    `padded` is how many conversations are a batch; without it a batch is a row.
    """
    import bitsandbytes  # noqa: F401  counted as an import
    import torch
    import transformers
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
    from transformers import Trainer, TrainerCallback, TrainingArguments

    from graftlab.tracking.result import peak_rss_mb, resident_mb

    singles, rows = documents(asked)
    chosen = [[document] for document in singles]
    merge: Any = transformers.DataCollatorWithFlattening()
    if asked.padded:
        speaker = transformers.AutoTokenizer.from_pretrained(asked.base)
        merge = transformers.DataCollatorForSeq2Seq(speaker)
    else:
        chosen = [[singles[index] for index in row] for row in rows]
    sizes: list[int] = []
    imported, turns = resident_mb(), Turns(asked.turns)

    class Clock(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            turns.over(sizes.pop(0))

    def collate(given: list[list[dict[str, list[int]]]]) -> dict[str, Any]:
        batch = [document for row in given for document in row]
        sizes.append(sum(len(document["input_ids"]) for document in batch))
        collated: dict[str, Any] = merge(batch)
        return collated

    kept = {"use_reentrant": False}
    model = prepare_model_for_kbit_training(
        theirs(asked),
        use_gradient_checkpointing=asked.checkpointing,
        gradient_checkpointing_kwargs=kept,
    )
    config = LoraConfig(task_type="CAUSAL_LM", r=RANK, lora_alpha=2 * RANK, target_modules=TARGETS)
    model = get_peft_model(model, config).train()
    model.config.use_cache = False
    with tempfile.TemporaryDirectory() as scratch:
        arguments = TrainingArguments(
            output_dir=scratch,
            use_cpu=True,
            bf16=products() == torch.bfloat16,
            per_device_train_batch_size=asked.padded or 1,
            max_steps=asked.steps,
            gradient_checkpointing=asked.checkpointing,
            gradient_checkpointing_kwargs=kept,
            report_to="none",
            logging_strategy="no",
            save_strategy="no",
            remove_unused_columns=False,
            disable_tqdm=True,
        )
        Trainer(
            model, arguments, train_dataset=chosen, data_collator=collate, callbacks=[Clock()]
        ).train()
    return {"speeds": turns.speeds, "memory": peak_rss_mb() - imported}


def loss(asked: argparse.Namespace) -> dict[str, Any]:
    """The validation loss after all steps, and the base's own."""
    share, every = "data.valid_fraction=0.1", "callbacks.validation.every_epochs=null"
    return _ours(asked, share, every, f"data.limit={asked.limit}")


WORKS = {"loading": loading, "training": training, "loss": loss}

if __name__ == "__main__":
    given = argparse.Namespace(checkpointing=False, padded=0, turns=False)
    vars(given).update(json.loads(sys.argv[2]))
    print(json.dumps(WORKS[sys.argv[1]](given)))
